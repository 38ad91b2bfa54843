"""Decoding image files to pixels, and drawing boxes onto pixels."""
