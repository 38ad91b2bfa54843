"""Draw training pictures with exact boxes."""
