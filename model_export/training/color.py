"""Colour changes that leave the boxes alone."""

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.training.recipe import Augmentation


def jitter_hsv(
    image: NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift hue, saturation and value of (h, w, 3) uint8 BGR, each in half of the cases.

    As in YOLOX, hue goes round, and saturation and value stop at 0 and 255.
    """
    limits = np.array([settings.hue, settings.saturation, settings.value])
    shifts = rng.uniform(-limits, limits) * rng.integers(0, 2, size=3)
    hue, saturation, value = np.rint(np.arange(256) + shifts[:, None])
    # OpenCV's hue of 8 bits is in units of 2 degrees.
    curves = (hue % 180, saturation.clip(0, 255), value.clip(0, 255))
    # A table for each plane takes half the time of one for all three.
    planes = [
        cv2.LUT(plane, curve.astype(np.uint8))
        for plane, curve in zip(
            cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV)), curves, strict=True
        )
    ]
    return np.asarray(cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2BGR), dtype=np.uint8)
