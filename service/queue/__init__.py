"""Admission, batching, and the slots and threads that batches run on."""
