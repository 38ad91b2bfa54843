"""Download and check released and third-party files, and add a model contract."""
