"""Server processes: start, signals, drain, workers and their connections."""
