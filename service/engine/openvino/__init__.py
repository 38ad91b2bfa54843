"""OpenVINO as an engine of its own."""
