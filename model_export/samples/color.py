"""Colour changes that leave the boxes alone."""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.samples.recipe import Augmentation

# Steps of a byte per unit of the settings, whose hue is in units of 2 degrees.
HSV_UNITS: Final = (256 / 180, 1, 1)


def jitter_hsv(
    image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift hue, saturation and value of (h, w, 3) uint8 BGR, each in half of the cases.

    As in YOLOX, hue goes round, and saturation and value stop at 0 and 255. Where nothing is
    shifted, the image itself comes back.
    """
    limits = np.array([settings.hue, settings.saturation, settings.value])
    shifts = rng.uniform(-limits, limits) * rng.integers(0, 2, size=3)
    if not shifts.any():
        return image
    hue, saturation, value = np.rint(shifts * HSV_UNITS).astype(int).tolist()
    # In the full range, the hue of a byte goes round where the byte does.
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL), dtype=np.uint8)
    rows = hsv.reshape(len(hsv), -1)
    # A whole row to add is what numpy is fast at.
    rows += np.tile(np.array([hue % 256, 0, 0], dtype=np.uint8), image.shape[1])
    # OpenCV's sums of bytes stop at the ends, and are slow for negative numbers.
    shift = np.array([0, saturation, value, 0], dtype=np.float64)
    cv2.add(hsv, shift.clip(min=0), dst=hsv)
    cv2.subtract(hsv, (-shift).clip(min=0), dst=hsv)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL), dtype=np.uint8)
