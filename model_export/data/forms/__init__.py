"""Readers and writers of the forms in which people have annotated images."""
