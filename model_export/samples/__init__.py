"""Training samples: what is decided about each, and how pictures are moved, mixed and coloured."""
