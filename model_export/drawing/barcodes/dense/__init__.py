"""Draw symbols with so many modules that they look like texture, and strips of low bars."""
