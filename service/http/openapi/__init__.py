"""The OpenAPI document: all that FastAPI cannot find in a signature."""
