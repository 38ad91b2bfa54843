"""The server's command: its flags, and where its settings come from."""
