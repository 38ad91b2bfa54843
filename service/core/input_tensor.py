"""Pack letterboxed images into the input tensor that a model expects."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.core.contract import InputSpec


def takes_pixels(spec: InputSpec) -> bool:
    """Whether a model takes (N, H, W, 3) uint8 BGR images as they are."""
    return (spec.color_order, spec.layout, spec.dtype) == ("BGR", "NHWC", "uint8")


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


def stack_images(images: Sequence[NDArray[np.uint8]], spec: InputSpec) -> NDArray[np.generic]:
    """Convert (H, W, 3) uint8 BGR images of one size to the one tensor that a model takes."""
    return pack_images(images[0][np.newaxis] if len(images) == 1 else np.stack(images), spec)
