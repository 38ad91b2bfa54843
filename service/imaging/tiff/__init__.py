"""TIFF: its directory of tags, the layouts that are read, and decoding them."""
