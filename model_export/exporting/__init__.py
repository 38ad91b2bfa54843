"""From a trained model to an ONNX file that a server can trust."""
