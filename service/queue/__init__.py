"""Admission, batching, and the threads and slots that batches run on."""
