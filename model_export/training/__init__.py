"""Training: what a cell should have predicted, and how wrong it was."""
