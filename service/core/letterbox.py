"""Fit an image into the network's input without changing its shape, and find the way back."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

LetterboxMode = Literal["square", "rectangle"]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image lies in the network's input.

    Attributes:
        ratio: Network pixels per image pixel.
        image_height: Height of the image in pixels.
        image_width: Width of the image in pixels.
        network_height: Height of the network's input in pixels.
        network_width: Width of the network's input in pixels.
    """

    ratio: float
    image_height: int
    image_width: int
    network_height: int
    network_width: int

    def to_image(self, boxes_xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map (K, 4) float32 boxes from network pixels to image pixels, clipped to the image."""
        width, height = self.image_width, self.image_height
        limits = np.array([width, height, width, height], dtype=np.float32)
        boxes: NDArray[np.float32] = np.clip(boxes_xyxy / np.float32(self.ratio), 0, limits)
        return boxes


def letterbox(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    mode: LetterboxMode = "square",
    pad_value: int = 114,
    multiple: int = 32,
    image_size: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Resize an image to fit, put it top-left and pad the rest.

    Args:
        image: (h, w, 3) uint8, any size from 1 x 1 up.
        height: Network height in pixels.
        width: Network width in pixels.
        mode: `square` fills the whole network size; `rectangle` pads only to the next `multiple`.
        pad_value: Pixel value of the border.
        multiple: What a rectangle's sides are multiples of; the largest stride.
        image_size: (height, width) in pixels of the image itself, where `image` shows it in fewer.

    Returns:
        The (H, W, 3) uint8 network input, and the way back.
    """
    image_height, image_width = image_size or image.shape[:2]
    ratio = min(height / image_height, width / image_width)
    fit_height = max(1, int(image_height * ratio))
    fit_width = max(1, int(image_width * ratio))
    if mode == "rectangle":
        height = min(height, _round_up(fit_height, multiple))
        width = min(width, _round_up(fit_width, multiple))
    canvas = np.full((height, width, 3), pad_value, dtype=np.uint8)
    inside = canvas[:fit_height, :fit_width]
    cv2.resize(image, (fit_width, fit_height), dst=inside, interpolation=cv2.INTER_LINEAR)
    return canvas, Letterbox(ratio, image_height, image_width, height, width)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
