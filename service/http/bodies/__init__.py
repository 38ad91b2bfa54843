"""Request bodies: what they are, and the images and options in them."""
