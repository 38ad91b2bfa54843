"""The sockets that a server listens on: opening, sharing, accepting and closing them."""
