"""Draw flat prints that resemble symbols but are not symbols."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from model_export.drawing.barcodes.surfaces import Pixels, ink_color, page, paper_color, patterned

Random = np.random.Generator


def decoy(rng: Random, height: int, width: int) -> Pixels:
    """Draw a print that a detector should ignore.

    Args:
        rng: Source of randomness.
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width, 3) uint8, BGR.
    """
    return DECOYS[rng.integers(len(DECOYS))](rng, height, width)


def _ruler(rng: Random, height: int, width: int) -> Pixels:
    """A ruler: equally spaced ticks of two lengths."""
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    ink, period, every = ink_color(rng).tolist(), int(rng.integers(3, 12)), int(rng.integers(4, 11))
    for tick, x in enumerate(range(period, width, period)):
        length = 0.5 if tick % every == 0 else 0.25
        cv2.line(image, (x, 0), (x, int(length * height)), ink, max(1, period // 5))
    return image


def _fields(rng: Random, height: int, width: int) -> Pixels:
    """Random dark and light fields, without the finder patterns of symbols."""
    module = int(rng.integers(2, 9))
    there = rng.random((height // module + 1, width // module + 1)) < rng.uniform(0.2, 0.7)
    mask = np.kron(there, np.ones((module, module), dtype=np.bool_))[:height, :width]
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    # A quiet zone, as symbols have.
    mask[: 2 * module] = mask[-2 * module :] = False
    mask[:, : 2 * module] = mask[:, -2 * module :] = False
    image[mask] = ink_color(rng)
    return image


def _rings(rng: Random, height: int, width: int) -> Pixels:
    """Nested squares and circles."""
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    ink, middle, thick = ink_color(rng).tolist(), (width // 2, height // 2), int(rng.integers(1, 6))
    for radius in range(thick, min(height, width) // 2 - 1, 2 * thick + int(rng.integers(3))):
        if rng.random() < 0.5:
            cv2.circle(image, middle, radius, ink, thick)
        else:
            corner = middle[0] - radius, middle[1] - radius
            cv2.rectangle(image, corner, (middle[0] + radius, middle[1] + radius), ink, thick)
    return image


DECOYS: Final[tuple[Callable[[Random, int, int], Pixels], ...]] = (
    patterned,
    patterned,
    page,
    page,
    _ruler,
    _fields,
    _rings,
)
