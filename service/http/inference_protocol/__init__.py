"""The Open Inference Protocol, KServe's V2, over HTTP; `calls` is shared with gRPC."""
