"""Measuring barcode detectors: what they find on photos, and what a decoder reads there."""
