"""Calls of the protocol, whichever way they came: by HTTP or by gRPC."""
