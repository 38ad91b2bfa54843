"""Colour changes that leave the boxes alone."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.samples.settings import Augmentation

# What one unit of the settings is in a byte: a unit of hue is 2 degrees, a byte's step 360/256.
HSV_UNITS: Final = (256 / 180, 1, 1)


def jitter_hsv(
    image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift hue, saturation and value of a (h, w, 3) uint8 BGR image, each with probability 0.5.

    As in YOLOX, hue wraps round, and saturation and value stop at 0 and 255. If nothing is
    shifted, the image itself is returned.
    """
    limits = np.array([settings.hue, settings.saturation, settings.value])
    shifts = rng.uniform(-limits, limits) * rng.integers(0, 2, size=3)
    if not shifts.any():
        return image
    hue, saturation, value = np.rint(shifts * HSV_UNITS).astype(int).tolist()
    # In the full range, hue wraps round where the byte overflows.
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL), dtype=np.uint8)
    rows = hsv.reshape(len(hsv), -1)
    # Numpy adds whole rows much faster than single pixels of three values.
    rows += np.tile(np.array([hue % 256, 0, 0], dtype=np.uint8), image.shape[1])
    # OpenCV's sums saturate at 0 and 255, and are slow for negative numbers.
    shift = np.array([0, saturation, value, 0], dtype=np.float64)
    cv2.add(hsv, shift.clip(min=0), dst=hsv)
    cv2.subtract(hsv, (-shift).clip(min=0), dst=hsv)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL), dtype=np.uint8)
