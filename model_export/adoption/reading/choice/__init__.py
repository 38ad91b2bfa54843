"""The one reading of a graph that makes sense, among all that there are."""
