"""Measuring how well a detector does on annotated images."""
