"""Makes image files."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8], image_format: str = "PNG", **options: Any) -> bytes:
    """An image file of (h, w) or (h, w, 3) RGB pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()


def plain(value: int = 128, width: int = 64, height: int = 64, image_format: str = "PNG") -> bytes:
    """An image file of a single grey."""
    return encode(np.full((height, width, 3), value, dtype=np.uint8), image_format)


def photo_like(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB: smooth colour that lossy formats keep, different in every corner."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
