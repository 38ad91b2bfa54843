"""Draw geometric shapes with exact boxes: training data that anybody can make.

Coordinates are continuous, as everywhere in training: the pixel in column i and row j covers
[i, i + 1) x [j, j + 1). Lengths given as shares are relative to the picture's shorter side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.drawing.backdrops import backdrop, random_bgr
from model_export.samples.geometry import CORNER_BITS, Picture

CLASS_NAMES: Final = ("circle", "square", "triangle")

# Number of shapes to try; a shape that would hide too much of another is dropped.
FEWEST_SHAPES: Final = 1
MAX_SHAPES: Final = 5
# Radius of a shape, as a share.
SMALLEST_RADIUS: Final = 0.12
LARGEST_RADIUS: Final = 0.28
# Minimum share of a shape's area that neither other shapes nor the border hide.
MIN_VISIBLE: Final = 0.75
# Corners of the polygon that approximates a circle to within 0.2 % of its radius.
CIRCLE_CORNERS: Final = 50
# Maximum tilt to either side, radians; a small network would take too long to learn all angles.
MAX_TILT: Final = 0.35
# Shapes are drawn at this multiple of their size and averaged down, for smooth edges.
OVERSAMPLING: Final = 4
# Number of random colours to choose from; the one with the most contrast wins.
COLORS_TRIED: Final = 3
# Maximum relative change of brightness from the middle of a shape to its edge, along either axis.
MAX_LIGHT: Final = 0.2
# Maximum standard deviation of the noise, on the scale of 0 to 255.
MAX_NOISE: Final = 6.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled shape.

    Attributes:
        class_id: Index into `CLASS_NAMES`.
        center_xy: Centre of the circumscribed circle, pixels.
        radius: Radius of the circumscribed circle, pixels.
        tilt: Clockwise rotation, radians; at 0, a square is level and a triangle points upwards.
    """

    class_id: int
    center_xy: tuple[float, float]
    radius: float
    tilt: float

    def corners_xy(self) -> NDArray[np.float64]:
        """(P, 2) float64: the corners in order, pixels."""
        count = (CIRCLE_CORNERS, 4, 3)[self.class_id]
        # A square's first corner lies halfway to the next, and the y axis points down.
        first = self.tilt + (np.pi / 4 if count == 4 else -np.pi / 2)
        angles = first + 2 * np.pi / count * np.arange(count)
        arms = self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.asarray(self.center_xy + arms)


def draw_scene(seed: int, index: int, height: int, width: int) -> Picture:
    """Draw one picture; the same numbers give the same picture.

    Args:
        seed: Seed of the data set, not negative.
        index: Number of the picture, not negative.
        height: Height in pixels, at least 32: smaller shapes would not be recognisable.
        width: Width in pixels, at least 32.

    Returns:
        Shapes on a backdrop, and the box of the visible part of each. Few pictures are empty.
    """
    rng = np.random.default_rng((seed, index))
    shapes = arrange(rng, height, width)
    canvas = backdrop(rng, height, width).astype(np.float32)
    for shape in shapes:
        _paint(canvas, shape, rng)
    canvas += rng.normal(scale=rng.uniform(0, MAX_NOISE), size=canvas.shape)
    boxes = [_extent(mask) for mask in visible_masks(shapes, height, width)]
    return Picture(
        image=np.clip(np.rint(canvas), 0, 255).astype(np.uint8),
        boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        class_ids=np.array([shape.class_id for shape in shapes], dtype=np.int64),
    )


def arrange(rng: np.random.Generator, height: int, width: int) -> list[Shape]:
    """Choose shapes for a picture of this size in pixels; the rearmost shape comes first."""
    shapes: list[Shape] = []
    for _ in range(rng.integers(FEWEST_SHAPES, MAX_SHAPES + 1)):
        more = [*shapes, _random_shape(rng, height, width)]
        masks = visible_masks(more, height, width)
        if all(_shows(*pair) for pair in zip(more, masks, strict=True)):
            shapes = more
    return shapes


def visible_masks(shapes: Sequence[Shape], height: int, width: int) -> list[NDArray[np.bool_]]:
    """The pixels that show each shape, as one (height, width) bool mask per shape.

    A shape shows where it fills at least half of a pixel and no shape in front does.

    Args:
        shapes: The shapes, from back to front.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
    """
    masks = []
    hidden = np.zeros((height, width), dtype=np.bool_)
    for shape in reversed(shapes):
        solid = _coverage(shape, height, width) >= 0.5
        masks.append(solid & ~hidden)
        hidden |= solid
    return masks[::-1]


def _random_shape(rng: np.random.Generator, height: int, width: int) -> Shape:
    shorter = min(height, width)
    # Log-uniform, because uniform radii would give few small shapes.
    radius = shorter * np.exp(rng.uniform(np.log(SMALLEST_RADIUS), np.log(LARGEST_RADIUS)))
    # The border of the picture may cut shapes, but not through their centre.
    x, y = rng.uniform(radius / 2, np.array([width, height]) - radius / 2)
    class_id = int(rng.integers(len(CLASS_NAMES)))
    tilt = rng.uniform(-MAX_TILT, MAX_TILT)
    return Shape(class_id, (float(x), float(y)), float(radius), tilt)


def _shows(shape: Shape, mask: NDArray[np.bool_]) -> bool:
    area = cv2.contourArea(shape.corners_xy().astype(np.float32))
    return bool(mask.sum() >= MIN_VISIBLE * area)


def _coverage(shape: Shape, height: int, width: int) -> NDArray[np.float32]:
    """(height, width) float32: the share of each pixel that a shape fills, 0 to 1."""
    large = np.zeros((OVERSAMPLING * height, OVERSAMPLING * width), dtype=np.uint8)
    # In OpenCV, the centre of the first pixel is at 0, not at 0.5.
    points = np.rint((OVERSAMPLING * shape.corners_xy() - 0.5) * (1 << CORNER_BITS))
    cv2.fillPoly(large, [points.astype(np.int32)], (255,), shift=CORNER_BITS)
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small / np.float32(255))


def _paint(canvas: NDArray[np.float32], shape: Shape, rng: np.random.Generator) -> None:
    """Draw a shape, lit from one side, in a colour that contrasts with its background.

    Args:
        canvas: (height, width, 3) float32, BGR, 0 to 255; changed in place.
        shape: The shape to draw.
        rng: Source of randomness for colour and light.
    """
    height, width = canvas.shape[:2]
    coverage = _coverage(shape, height, width)
    colors = [random_bgr(rng, (150, 256), (150, 256)) for _ in range(COLORS_TRIED)]
    behind = np.average(canvas, axis=(0, 1), weights=coverage)
    color = max(colors, key=lambda candidate: float(np.abs(candidate - behind).sum()))
    x, y = ((np.arange(side) + 0.5).astype(np.float32) for side in (width, height))
    slope = rng.uniform(-MAX_LIGHT, MAX_LIGHT, size=2).astype(np.float32) / shape.radius
    light = 1 + (x - shape.center_xy[0]) * slope[0] + ((y - shape.center_xy[1]) * slope[1])[:, None]
    lit = np.minimum(light[:, :, np.newaxis] * color, 255)
    canvas += coverage[:, :, np.newaxis] * (lit - canvas)


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box around a (height, width) mask's set pixels: x1, y1, x2, y2 in pixels."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height
