"""What operators see: metrics, log lines, GPUs, and what is recorded of each request."""
