"""One HTTP/1.1 connection: its bounds, refusals at the head, and uvicorn underneath."""
