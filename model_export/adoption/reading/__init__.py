"""Find out by experiment how a third-party graph takes pixels and gives boxes."""
