"""ONNX graphs: read, edited, run and proven."""
