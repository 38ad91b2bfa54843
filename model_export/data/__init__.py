"""Annotated images on disk, read and checked."""
