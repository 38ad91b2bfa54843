"""Thumbnails of images, which show whether two files are the same picture."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Sides of a thumbnail in pixels.
SIDE: Final = 16


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(SIDE, SIDE) uint8 grey of an image, (h, w, 3) uint8 BGR; the aspect is lost."""
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
