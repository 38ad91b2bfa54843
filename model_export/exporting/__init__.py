"""Export a trained model to an ONNX file that is verified against PyTorch."""
