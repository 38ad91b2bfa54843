"""A YOLOX object-detection server: HTTP in, boxes out, a batched queue and ONNX Runtime between."""

__version__ = "0.1.0"
