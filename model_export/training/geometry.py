"""Affine maps of pictures and their boxes.

Coordinates are continuous: the pixel in column i and row j covers [i, i + 1) x [j, j + 1), and
the edges of a box are numbers on the same axes. A matrix is (3, 3) float64 and maps columns
(x, y, 1) of a picture to those of the network's input.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.training.recipe import Augmentation

Matrix = NDArray[np.float64]
Boxes = NDArray[np.float32]
ClassIds = NDArray[np.int64]

# What the service's letterbox pads with.
PAD_VALUE: Final = 114
# Bits behind the binary point in the corners that OpenCV draws a polygon through.
CORNER_BITS: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels and what is on them.

    Attributes:
        image: (h, w, 3) uint8, BGR.
        boxes_xyxy: (K, 4) float32, pixels of `image`.
        class_ids: (K,) int64.
    """

    image: NDArray[np.uint8]
    boxes_xyxy: Boxes
    class_ids: ClassIds


def translation(x: float, y: float) -> Matrix:
    """Shift by (x, y) pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def scaling(factor: float) -> Matrix:
    """Scale about the origin."""
    return np.diag([factor, factor, 1.0])


def random_affine(
    height: int, width: int, settings: Augmentation, rng: np.random.Generator
) -> Matrix:
    """A rotation, scale, shear and shift about the middle of an input of this size, pixels."""
    angle = np.deg2rad(rng.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    degrees = rng.uniform(-settings.shear_degrees, settings.shear_degrees, size=2)
    shear_x, shear_y = np.tan(np.deg2rad(degrees))
    shift_x, shift_y = rng.uniform(-settings.translation, settings.translation, size=2)
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shear = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    turned: Matrix = shear @ rotation @ scaling(rng.uniform(*settings.scale))
    there = translation((0.5 + shift_x) * width, (0.5 + shift_y) * height)
    moved: Matrix = there @ turned @ translation(-width / 2, -height / 2)
    return moved


def in_view(
    canvas: NDArray[np.uint8], picture: Picture, matrix: Matrix, settings: Augmentation
) -> Picture:
    """A canvas with those boxes of a mapped picture that can be found on it.

    A box that is turned becomes the smallest upright one round the part of it in view. Boxes of
    which too little is left are dropped.
    """
    height, width = canvas.shape[:2]
    corners = picture.boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    x, y = np.moveaxis(corners @ matrix[:2, :2].T + matrix[:2, 2], 2, 0)
    # A convex shape within a rectangle reaches as far along an axis as it does within the
    # rectangle's range of the other axis, cut at the rectangle's own end.
    x_ends = np.clip(_reach(x, y, height), 0, width)
    y_ends = np.clip(_reach(y, x, width), 0, height)
    boxes = np.stack([x_ends[0], y_ends[0], x_ends[1], y_ends[1]], axis=1).astype(np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = ((sides > 0) & (sides >= settings.least_side)).all(axis=1)
    keep &= sides.prod(axis=1) >= settings.least_visible * np.ptp(x, axis=1) * np.ptp(y, axis=1)
    return Picture(canvas, boxes[keep], picture.class_ids[keep])


def _reach(
    along: NDArray[np.float64], across: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far polygons reach along one axis where the other is within 0 and a limit.

    Args:
        along: (K, P) float64, one coordinate of each corner, in order.
        across: (K, P) float64, the other.
        limit: Pixels.

    Returns:
        (K,) least and greatest coordinate; infinities the wrong way round where nothing is within.
    """
    next_along, next_across = np.roll(along, -1, axis=1), np.roll(across, -1, axis=1)
    rise = next_across - across
    touches = (np.minimum(across, next_across) <= limit) & (np.maximum(across, next_across) >= 0)
    # The ends of each edge's part within the limits, as shares of the edge.
    steps = np.clip([across, next_across], 0, limit) - across
    shares = steps / np.where(rise == 0, 1, rise)
    ends = along + shares * (next_along - along)
    least = np.where(touches, ends, np.inf).min(axis=(0, 2))
    greatest = np.where(touches, ends, -np.inf).max(axis=(0, 2))
    return least, greatest


def blank(height: int, width: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 of nothing but padding."""
    return np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)


def paint(canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: Matrix) -> None:
    """Draw a mapped (h, w, 3) uint8 image on an (H, W, 3) uint8 canvas, and nothing round it.

    Only the part of the canvas that the image reaches is worked on, and each pixel is resampled
    once, bilinearly, however many maps the matrix is made of.
    """
    height, width = image.shape[:2]
    whole = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    corners = whole @ matrix[:2, :2].T + matrix[:2, 2]
    limits = np.array([canvas.shape[1], canvas.shape[0]])
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, limits).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, limits).astype(int)
    if left >= right or top >= bottom:
        return
    # OpenCV counts from the middle of the first pixel, half a pixel from the edge.
    local = translation(-left - 0.5, -top - 0.5) @ matrix @ translation(0.5, 0.5)
    size = (int(right - left), int(bottom - top))
    # The outermost pixels go on to the image's edge; the mask ends it there.
    warped = cv2.warpAffine(image, local[:2], size, borderMode=cv2.BORDER_REPLICATE)
    mask = _polygon(corners - (left + 0.5, top + 0.5), size)
    cv2.copyTo(warped, mask, canvas[top:bottom, left:right])


def flip(picture: Picture) -> Picture:
    """Mirror left to right."""
    width = picture.image.shape[1]
    boxes = picture.boxes_xyxy.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    image = np.asarray(cv2.flip(picture.image, 1), dtype=np.uint8)
    return Picture(image, boxes, picture.class_ids)


def _polygon(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) uint8: 255 within four (4, 2) corners, counted from the middle of the first pixel."""
    mask = np.zeros(size[::-1], dtype=np.uint8)
    points = np.rint(corners * (1 << CORNER_BITS)).astype(np.int32)
    cv2.fillConvexPoly(mask, points, (255,), shift=CORNER_BITS)
    return mask
