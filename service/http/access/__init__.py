"""Access: API keys, origins of pages, addresses of clients, the access log."""
