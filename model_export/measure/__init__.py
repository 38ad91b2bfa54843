"""How well a detector does on annotated images."""
