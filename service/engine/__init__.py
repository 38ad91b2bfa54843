"""A model file to raw rows, on the device that was asked for."""
