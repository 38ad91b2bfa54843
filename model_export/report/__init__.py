"""What a training tells the people who watch it."""
