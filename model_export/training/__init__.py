"""Training: from a configuration and data to the weights of a model."""
