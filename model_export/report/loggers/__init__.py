"""Services that a training is logged to."""
