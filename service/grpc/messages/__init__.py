"""The messages of the protocol; `inference.proto` says how they are generated."""
