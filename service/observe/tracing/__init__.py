"""Traces of requests: the client's own are carried on, and spans are sent where that is asked."""
