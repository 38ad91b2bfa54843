"""The parts of `train`: its options, and going on with a run."""
