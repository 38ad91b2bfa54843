"""The places of labels: inside the picture, and beside one another where there is room."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

# A label of a picture with more boxes than this takes its first place, free or not.
MAX_COMPARED: Final = 400
# How many heights of a label its place may be away from the box's upper edge.
MAX_STEPS: Final = 6

Place = tuple[float, float]


class LabelPlaces:
    """The places taken so far in one picture.

    Args:
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        # (K, 4) float64, x1 y1 x2 y2 in pixels of the picture.
        self._taken = np.empty((0, 4))

    def take(self, box_xyxy: tuple[float, float, float, float], size: tuple[int, int]) -> Place:
        """The top left corner of the label of a box, in pixels of the picture.

        Labels that come first choose first.

        Args:
            box_xyxy: The box, in pixels of the picture.
            size: Width and height of the label; it is no larger than the picture.
        """
        wanted = self._inside(_around(box_xyxy, size), size)
        best = 0
        if len(self._taken) < MAX_COMPARED:
            rectangles = np.concatenate([wanted, wanted + size], axis=1)
            best = int(self._overlap(rectangles).argmin())  # the first of those that are free
            self._taken = np.vstack([self._taken, rectangles[best]])
        return float(wanted[best, 0]), float(wanted[best, 1])

    def _inside(self, places: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
        """(K, 2) places, moved into the picture."""
        room = np.subtract((self._width, self._height), size)
        return np.clip(places, 0, np.maximum(room, 0))

    def _overlap(self, rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
        """(K,) square pixels of each of (K, 4) rectangles that are taken."""
        ours, theirs = rectangles[:, None], self._taken[None]
        low = np.maximum(ours[..., :2], theirs[..., :2])
        sides = np.maximum(np.minimum(ours[..., 2:], theirs[..., 2:]) - low, 0)
        covered: NDArray[np.float64] = sides.prod(axis=2).sum(axis=1)
        return covered


def _around(
    box_xyxy: tuple[float, float, float, float], size: tuple[int, int]
) -> NDArray[np.float64]:
    """(K, 2) top left corners of a label of this size, the most usual place first."""
    (x1, y1, x2, y2), (width, height) = box_xyxy, size
    usual = [y1 - height, y1, y2, y2 - height]
    if y1 < height:
        usual = [y1, y2, y2 - height]
    further = [y1 + step * height for k in range(1, MAX_STEPS) for step in (-k - 1, k)]
    return np.array(
        [(x, y) for y in (*usual, *further) for x in (x1, x2 - width)], dtype=np.float64
    )
