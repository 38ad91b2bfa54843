"""A YOLOX object-detection server: HTTP in, boxes out, a batched queue and ONNX Runtime between."""
