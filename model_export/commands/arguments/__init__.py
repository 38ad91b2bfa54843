"""Arguments that several commands share, and the types of arguments."""
