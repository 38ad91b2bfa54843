"""A colour for each class, as different in hue and in lightness as the number of classes allows."""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rgb = tuple[int, int, int]

COLOR_COUNT: Final = 128
FIRST: Final = (255, 85, 85)
# Levels of red, green and blue from which colours are chosen.
LEVELS: Final = np.arange(0, 256, 17)
# Neither grey, nor so glaring that a photo fades beside it, nor lost on black or on white.
CHROMA: Final = (0.09, 0.24)
LIGHTNESS: Final = (0.52, 0.91)
# Lightness counts more than hue, and red against green less: eyes differ in that the most.
WEIGHTS: Final = np.array([1.5, 0.8, 1.0])
# sRGB to Oklab: https://bottosson.github.io/posts/oklab/
RGB_TO_LMS: Final = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LMS_TO_LAB: Final = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def class_color(class_id: int) -> Rgb:
    """The colour of a class, as 8-bit red, green and blue; 128 classes have their own."""
    return palette()[class_id % COLOR_COUNT]


def text_color(color: Rgb) -> Rgb:
    """Black or white, whichever is easier to read on this colour."""
    lightness = oklab(np.array([color]))[0, 0]
    return (0, 0, 0) if lightness > 0.62 else (255, 255, 255)


@cache
def palette() -> tuple[Rgb, ...]:
    """The colours of class 0, 1, 2 and so on; each is far from all before it.

    So a model of few classes gets the most different ones.
    """
    rgb = _candidates()
    points = oklab(rgb) * WEIGHTS
    chosen = [int(np.abs(rgb - FIRST).sum(axis=1).argmin())]
    distances = np.full(len(rgb), np.inf)
    while len(chosen) < COLOR_COUNT:
        to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distances = np.minimum(distances, to_last)
        chosen.append(int(distances.argmax()))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in rgb[chosen])


def oklab(rgb: NDArray[np.integer]) -> Floats:
    """(K, 3) lightness 0 to 1, green to red and blue to yellow, of (K, 3) 8-bit sRGB.

    Distances in it are differences that people see.
    """
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    lab: Floats = np.cbrt(linear @ RGB_TO_LMS.T) @ LMS_TO_LAB.T
    return lab


def _candidates() -> NDArray[np.int64]:
    """(K, 3) the colours that stand out on photos."""
    grid = np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij")
    rgb = np.stack(grid, axis=-1).reshape(-1, 3)
    lightness, chroma = oklab(rgb)[:, 0], np.hypot(*oklab(rgb)[:, 1:].T)
    return rgb[_within(lightness, LIGHTNESS) & _within(chroma, CHROMA)]


def _within(values: Floats, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return (values >= limits[0]) & (values <= limits[1])
