"""Request bodies: reading them within limits, and finding the images and options in them."""
