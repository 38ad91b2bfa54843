"""The detector's arithmetic: pure functions on numpy arrays, shared by serving and training."""
