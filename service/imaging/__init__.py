"""Image files to pixels, and pixels with boxes to image files."""
