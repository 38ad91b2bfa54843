"""Train, export, adopt, fetch and evaluate YOLOX models for the service."""
