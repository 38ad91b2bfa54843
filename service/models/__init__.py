"""The models that are served: their names, versions, loading and replacement."""
