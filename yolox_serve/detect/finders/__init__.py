"""Where objects are found: by a model in this process, or by a server."""
