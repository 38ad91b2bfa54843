"""Simulate a camera: lighting, blur, noise and JPEG compression."""

import cv2
import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
# (h, w, 3) uint8, BGR.
Pixels = NDArray[np.uint8]


def photographed(rng: Random, image: Pixels, finest: float) -> Pixels:
    """The image as a camera might have taken it.

    Args:
        rng: Source of randomness.
        image: The scene.
        finest: Side in pixels of the smallest detail that should stay distinct; limits the blur.
    """
    image = _lit(rng, image)
    if rng.random() < 0.35:
        image = np.asarray(cv2.merge([cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)] * 3))
    image = _blurred(rng, image, finest)
    if rng.random() < 0.6:
        image = _noisy(rng, image)
    return compressed(rng, image) if rng.random() < 0.6 else image


def compressed(rng: Random, image: Pixels) -> Pixels:
    """The image after JPEG compression of random quality."""
    quality = int(rng.integers(25, 96))
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), dtype=np.uint8)


def _lit(rng: Random, image: Pixels) -> Pixels:
    """Apply lighting: perhaps uneven, dim, tinted or hazy, with a shadow or with glare."""
    height, width = image.shape[:2]
    light = np.full((height, width), rng.uniform(0.8, 1.2), dtype=np.float32)
    if rng.random() < 0.6:
        light *= _ramp(rng, height, width)
    if rng.random() < 0.15:
        light *= _shadow(rng, height, width)
    if rng.random() < 0.1:
        light *= np.float32(rng.uniform(0.25, 0.6))
    tint = rng.uniform(0.8, 1.1, size=3) if rng.random() < 0.4 else np.ones(3)
    haze = rng.uniform(0, 90) if rng.random() < 0.25 else 0.0
    lit = image * light[:, :, np.newaxis] * (tint * (1 - haze / 255)).astype(np.float32)
    if haze:
        lit += np.float32(haze)
    if rng.random() < 0.12:
        lit += _glare(rng, height, width)[:, :, np.newaxis]
    return np.asarray(np.clip(lit, 0, 255), dtype=np.uint8)


def _ramp(rng: Random, height: int, width: int) -> NDArray[np.float32]:
    corners = rng.uniform(0.5, 1.15, size=(2, 2)).astype(np.float32)
    return np.asarray(cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR))


def _shadow(rng: Random, height: int, width: int) -> NDArray[np.float32]:
    """A shadow: darker on one side of a soft line."""
    angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.8, size=2)
    y = (np.arange(height, dtype=np.float32) - np.float32(place[0] * height))[:, np.newaxis]
    x = np.arange(width, dtype=np.float32) - np.float32(place[1] * width)
    far = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    share = np.clip(0.5 + far / np.float32(rng.uniform(1, 40)), 0, 1)
    return np.asarray(1 - np.float32(rng.uniform(0.2, 0.6)) * share, dtype=np.float32)


def _glare(rng: Random, height: int, width: int) -> NDArray[np.float32]:
    """A bright spot, to be added to the image."""
    side = min(height, width) * rng.uniform(0.08, 0.4, size=2)
    center = rng.uniform(0, 1, size=2) * (height, width)
    y = ((np.arange(height) - center[0]) / side[0]).astype(np.float32)[:, np.newaxis]
    x = ((np.arange(width) - center[1]) / side[1]).astype(np.float32)
    return np.asarray(np.float32(rng.uniform(60, 220)) * np.exp(-(x * x + y * y)))


def _blurred(rng: Random, image: Pixels, finest: float) -> Pixels:
    choice = rng.random()
    if choice < 0.3:
        return image
    # A sigma above 0.6 of a module merges modules, which few readers can handle; a tenth of the
    # blurred images may have up to 1.2.
    limit = finest * (1.2 if rng.random() < 0.1 else 0.6)
    sigma = min(rng.uniform(0.3, 1) * limit, 5.0)
    if choice < 0.8:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3)), dtype=np.uint8)
    return _moved(rng, image, 1 + 2.5 * sigma)


def _moved(rng: Random, image: Pixels, length: float) -> Pixels:
    """Motion blur over `length` pixels, in a random direction."""
    side = 2 * int(np.ceil(length / 2)) + 1
    angle = rng.uniform(0, np.pi)
    arm = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    kernel = np.zeros((side, side), dtype=np.uint8)
    ends = np.rint((side // 2 + np.array([-arm, arm])) * 16).astype(int).tolist()
    cv2.line(kernel, tuple(ends[0]), tuple(ends[1]), (255,), 1, cv2.LINE_AA, 4)
    weights = kernel / np.float32(kernel.sum())
    return np.asarray(cv2.filter2D(image, -1, weights), dtype=np.uint8)


def _noisy(rng: Random, image: Pixels) -> Pixels:
    """Sensor noise, independent in each pixel and channel."""
    strength = rng.uniform(1, 14)
    grain: NDArray[np.int16] = np.empty(image.shape, dtype=np.int16)
    cv2.setRNGSeed(int(rng.integers(1 << 31)))
    cv2.randn(grain, np.zeros(3), np.full(3, strength))
    return np.asarray(cv2.add(image, grain, dtype=cv2.CV_8U), dtype=np.uint8)
