"""Read, edit and run ONNX graphs, and prove what they accept."""
