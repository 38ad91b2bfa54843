"""Draw the surfaces that symbols are printed on or lie on."""

from functools import cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from model_export.drawing.barcodes import lettering
from model_export.drawing.barcodes.patterns import Blend, pattern

Random = np.random.Generator
# (h, w, 3) uint8, BGR.
Pixels = NDArray[np.uint8]

# Photos in scikit-image that it declares CC0 or public domain.
PHOTOS: Final = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "rocket.jpg"),
)
# Share of the surfaces that are a photo, a printed page or plain; the rest are patterns.
PHOTO_SHARE: Final = 0.16
PAGE_SHARE: Final = 0.12
PLAIN_SHARE: Final = 0.40


def surface(rng: Random, height: int, width: int) -> Pixels:
    """Draw a surface for symbols: plain, a pattern, a page of text or a photo.

    Args:
        rng: Source of randomness.
        height: Pixels.
        width: Pixels.
    """
    choice = rng.random()
    if choice < PHOTO_SHARE:
        return _photo(rng, height, width)
    if choice < PHOTO_SHARE + PAGE_SHARE:
        return page(rng, height, width)
    if choice < PHOTO_SHARE + PAGE_SHARE + PLAIN_SHARE:
        return colored(rng, _clouds(rng, height, width), contrast=rng.uniform(0, 60))
    return patterned(rng, height, width)


def patterned(rng: Random, height: int, width: int) -> Pixels:
    """A surface with a pattern: fabrics, grids, stripes, dots and others, upright or rotated."""
    return colored(rng, pattern(rng, height, width), contrast=rng.uniform(25, 230))


def page(rng: Random, height: int, width: int) -> Pixels:
    """Lines of text on paper."""
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    size = int(rng.integers(8, 10 + max(4, min(height, width) // 12)))
    ink, y = ink_color(rng), int(rng.integers(size))
    left = int(rng.integers(max(1, width // 4)))
    while y < height:
        words = lettering.line(rng, size, letters=int(rng.integers(4, 90)))
        if rng.random() < 0.9:
            stamp(image, words, left, y, ink)
        y += round(size * rng.uniform(1.1, 1.6))
    return image


def stamp(image: Pixels, ink: Blend, x: int, y: int, color: NDArray[np.float32]) -> None:
    """Print an ink mask in a colour with its top left corner at x, y, clipped to the image."""
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + ink.shape[1], image.shape[1]), min(y + ink.shape[0], image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    part = image[y0:y1, x0:x1]
    weight = ink[y0 - y : y1 - y, x0 - x : x1 - x, np.newaxis] * np.float32(1 / 255)
    part[:] = part + weight * (color - part)


def colored(rng: Random, blend: Blend, *, contrast: float) -> Pixels:
    """Colour a pattern with two colours whose brightness differs by about `contrast` of 255."""
    middle = rng.uniform(50, 235)
    tint = rng.normal(scale=rng.choice((3.0, 25.0)), size=(2, 3))
    ends = np.clip(middle + np.array([[-0.5], [0.5]]) * contrast + tint, 0, 255)
    if rng.random() < 0.5:
        ends = ends[::-1]
    table = ends[0] + np.linspace(0, 1, 256)[:, np.newaxis] * (ends[1] - ends[0])
    return np.asarray(cv2.LUT(cv2.merge([blend] * 3), table[np.newaxis].astype(np.uint8)))


def paper_color(rng: Random) -> NDArray[np.float32]:
    """(3,) float32, BGR: mostly near white."""
    if rng.random() < 0.75:
        return np.asarray(rng.uniform(205, 255) - rng.uniform(0, 14, size=3), dtype=np.float32)
    return np.asarray(rng.uniform(120, 255, size=3), dtype=np.float32)


def ink_color(rng: Random) -> NDArray[np.float32]:
    """(3,) float32, BGR: mostly near black."""
    if rng.random() < 0.75:
        return np.asarray(rng.uniform(0, 50) + rng.uniform(0, 10, size=3), dtype=np.float32)
    color = rng.uniform(0, 150, size=3)
    color[rng.integers(3)] = rng.uniform(0, 40)
    return np.asarray(color, dtype=np.float32)


def _photo(rng: Random, height: int, width: int) -> Pixels:
    """A random crop of a photo, resized."""
    photo = _read_photo(PHOTOS[rng.integers(len(PHOTOS))])
    tall, wide = photo.shape[:2]
    share = rng.uniform(0.3, 1) * min(tall / height, wide / width)
    h, w = max(1, int(share * height)), max(1, int(share * width))
    y, x = int(rng.integers(tall - h + 1)), int(rng.integers(wide - w + 1))
    return np.asarray(cv2.resize(photo[y : y + h, x : x + w], (width, height)), dtype=np.uint8)


@cache
def _read_photo(name: str) -> Pixels:
    data = np.fromfile(Path(skimage.__file__).parent / "data" / name, dtype=np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def _clouds(rng: Random, height: int, width: int) -> Blend:
    coarse = rng.integers(0, 256, size=rng.integers(2, 7, size=2)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
