"""The way of an image from its bytes, through the queue and the model, to its boxes."""
