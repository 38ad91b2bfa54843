"""From a stack of letterboxed images to the tensor a model expects."""

import numpy as np
from numpy.typing import NDArray

from service.core.contract import InputSpec


def pack_images(images: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.generic]:
    """Convert (N, H, W, 3) uint8 BGR images to a model's channel order, range, dtype and layout."""
    if spec.color_order == "RGB":
        images = images[..., ::-1]
    if spec.layout == "NCHW":
        images = images.transpose(0, 3, 1, 2)
    low, high = spec.value_range
    if (low, high) == (0.0, 255.0):
        return np.ascontiguousarray(images, dtype=spec.dtype)
    scaled = images * np.float32((high - low) / 255) + np.float32(low)
    return np.ascontiguousarray(scaled, dtype=spec.dtype)
