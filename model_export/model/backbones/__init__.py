"""Backbones: the part of a network that turns an image into three maps of features."""
