"""Training samples: which ones a run takes, how pictures become samples, samples become batches."""
