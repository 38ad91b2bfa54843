"""Observability: metrics of the server, its workers and GPUs, and log lines."""
