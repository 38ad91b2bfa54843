"""Assignment and loss: what each cell should have predicted, and how wrong it was."""
