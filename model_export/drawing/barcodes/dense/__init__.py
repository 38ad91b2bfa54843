"""Draw symbols that look like texture, because they have thousands of modules, and low strips."""
