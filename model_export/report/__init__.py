"""What a person sees of a training: progress, metrics, plots and pictures of samples."""
