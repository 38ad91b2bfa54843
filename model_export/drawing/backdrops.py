"""Random backgrounds for the shapes: colours, patterns, lines and letters."""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# (height, width) float32, 0 to 1: the share of the second of two colours in each pixel.
Blend = NDArray[np.float32]

MAX_LINES: Final = 5
MAX_WORDS: Final = 3
LETTERS: Final = "ABEFHKLMNPRSTUVWXYZ2345679"


def backdrop(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Paint a pattern of two colours, with lines and letters on it.

    Args:
        rng: Source of randomness.
        height: Pixels.
        width: Pixels.

    Returns:
        (height, width, 3) uint8, BGR.
    """
    patterns: tuple[Callable[[np.random.Generator, int, int], Blend], ...]
    patterns = (_gradient, _clouds, _stripes, _tiles)
    blend = patterns[rng.integers(len(patterns))](rng, height, width)[:, :, np.newaxis]
    first, second = (random_bgr(rng, (0, 80), (30, 240)) for _ in range(2))
    image = (first + blend * (second - first)).astype(np.uint8)
    for _ in range(rng.integers(MAX_LINES + 1)):
        _draw_line(image, rng)
    for _ in range(rng.integers(MAX_WORDS + 1)):
        _draw_word(image, rng)
    return image


def random_bgr(
    rng: np.random.Generator, saturation: tuple[int, int], value: tuple[int, int]
) -> NDArray[np.float32]:
    """A colour of random hue, with saturation and value in these ranges: (3,) float32, 0 to 255."""
    hsv = (rng.integers(180), rng.integers(*saturation), rng.integers(*value))
    color = cv2.cvtColor(np.array([[hsv]], dtype=np.uint8), cv2.COLOR_HSV2BGR)
    return np.asarray(color[0, 0], dtype=np.float32)


def _gradient(rng: np.random.Generator, height: int, width: int) -> Blend:
    ramp = _along(rng, height, width)
    return np.asarray((ramp - ramp.min()) / np.ptp(ramp))


def _clouds(rng: np.random.Generator, height: int, width: int) -> Blend:
    coarse = rng.random(rng.integers(3, 9, size=2), dtype=np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(smooth, 0, 1))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Blend:
    period = min(height, width) * rng.uniform(0.08, 0.3)
    wave = np.sin(2 * np.pi * (_along(rng, height, width) / period + rng.random()))
    # The random gain makes anything from soft waves to edges one or two pixels wide.
    return np.asarray(np.clip(0.5 + rng.uniform(0.5, 4) * wave, 0, 1), dtype=np.float32)


def _tiles(rng: np.random.Generator, height: int, width: int) -> Blend:
    coarse = rng.random(rng.integers(2, 7, size=2), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST))


def _along(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """(height, width) float32: each pixel's coordinate along a random direction, pixels."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))


def _draw_line(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    # Two corners make a straight line, three a bent one.
    corners = rng.integers(0, (width, height), size=(int(rng.integers(2, 4)), 2))
    thickness = int(rng.integers(1, 1 + max(2, min(height, width) // 60)))
    closed = False
    cv2.polylines(image, [corners.astype(np.int32)], closed, _color(rng), thickness)


def _draw_word(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    word = "".join(rng.choice(list(LETTERS), size=int(rng.integers(2, 7))))
    origin = int(rng.integers(-width // 8, width * 3 // 4)), int(rng.integers(height + 1))
    scale = min(height, width) / 224 * rng.uniform(0.5, 1.2)
    cv2.putText(image, word, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, _color(rng))


def _color(rng: np.random.Generator) -> tuple[float, float, float]:
    blue, green, red = random_bgr(rng, (0, 120), (30, 256)).tolist()
    return blue, green, red
