"""Fit an image into the network's input at its own aspect ratio, and map boxes back."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract

LetterboxMode = Literal["square", "rectangle"]

# Common aspect ratios of photos (width over height), most common first.
PHOTO_ASPECTS: Final = (4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16)


@dataclass(frozen=True, slots=True)
class Rectangle:
    """How far to pad an image that need not fill the network's full size.

    Attributes:
        multiple: Both sides are multiples of this; the largest stride.
        least_side: Minimum length of a side in pixels.
    """

    multiple: int = 32
    least_side: int = 1

    def side(self, content: int) -> int:
        """The padded length in pixels of a side with `content` pixels of image."""
        return -(-max(content, self.least_side) // self.multiple) * self.multiple


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


def fit_to_model(
    image: NDArray[np.uint8],
    contract: ModelContract,
    mode: LetterboxMode,
    image_size: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Letterbox an image for a model.

    Args:
        image: (h, w, 3) uint8, any size from 1 x 1 up.
        contract: The model's contract.
        mode: `square` pads to the model's full size, `rectangle` only as far as necessary.
        image_size: (height, width) in pixels of the original, where `image` is a reduced decode.

    Returns:
        The (H, W, 3) uint8 network input, and the mapping back.
    """
    spec = contract.input
    rectangle = Rectangle(max(contract.strides), contract.least_side)
    return letterbox(
        image,
        spec.height,
        spec.width,
        rectangle=rectangle if mode == "rectangle" else None,
        pad_value=spec.pad_value,
        image_size=image_size,
    )


def letterbox(
    image: NDArray[np.uint8],
    height: int,
    width: int,
    *,
    rectangle: Rectangle | None = None,
    pad_value: int = 114,
    image_size: tuple[int, int] | None = None,
) -> tuple[NDArray[np.uint8], Letterbox]:
    """Resize an image to fit, place it at the top left and pad the rest.

    Args:
        image: (h, w, 3) uint8, any size from 1 x 1 up.
        height: Network height in pixels.
        width: Network width in pixels.
        rectangle: How far to pad, at most to the network's full size; None pads to the full size.
        pad_value: Pixel value of the border.
        image_size: (height, width) in pixels of the original, where `image` is a reduced decode.

    Returns:
        The (H, W, 3) uint8 network input, and the mapping back.
    """
    image_height, image_width = image_size or image.shape[:2]
    ratio = min(height / image_height, width / image_width)
    fit_height = max(1, int(image_height * ratio))
    fit_width = max(1, int(image_width * ratio))
    if rectangle:
        height = min(height, rectangle.side(fit_height))
        width = min(width, rectangle.side(fit_width))
    canvas = np.full((height, width, 3), pad_value, dtype=np.uint8)
    inside = canvas[:fit_height, :fit_width]
    cv2.resize(image, (fit_width, fit_height), dst=inside, interpolation=cv2.INTER_LINEAR)
    return canvas, Letterbox(ratio, image_height, image_width, height, width)


def promised_sizes(contract: ModelContract, mode: LetterboxMode) -> list[tuple[int, int]]:
    """Every network (height, width) in pixels that a letterbox of this mode can make."""
    height, width, step = contract.input.height, contract.input.width, max(contract.strides)
    if mode == "square":
        return [(height, width)]
    shortest = contract.least_side
    tall = {(height, narrow) for narrow in range(shortest, width + 1, step)}
    wide = {(low, width) for low in range(shortest, height + 1, step)}
    return sorted(tall | wide)


def likely_sizes(contract: ModelContract, mode: LetterboxMode) -> list[tuple[int, int]]:
    """The promised sizes, likeliest first: full size, common photo sizes, then by aspect ratio."""
    whole = contract.input.height, contract.input.width
    common = [_size_of(aspect, contract, mode) for aspect in PHOTO_ASPECTS]
    rest = sorted(
        promised_sizes(contract, mode),
        key=lambda size: abs(math.log(size[0] / whole[0] * whole[1] / size[1])),
    )
    return list(dict.fromkeys([whole, *common, *rest]))


def _size_of(aspect: float, contract: ModelContract, mode: LetterboxMode) -> tuple[int, int]:
    """The network (height, width) for an image of this aspect ratio (width over height)."""
    spec = contract.input
    if mode == "square":
        return spec.height, spec.width
    rectangle = Rectangle(max(contract.strides), contract.least_side)
    ratio = min(spec.height, spec.width / aspect)
    height, width = rectangle.side(int(ratio)), rectangle.side(int(ratio * aspect))
    return min(spec.height, height), min(spec.width, width)
