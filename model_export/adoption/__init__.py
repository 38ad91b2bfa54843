"""Third-party and released files: fetched, checked, and given a contract."""
