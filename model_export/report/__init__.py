"""Reports of a training for people: progress, metrics, plots and pictures of samples."""
