"""Affine maps of pictures and their boxes.

Coordinates are continuous: the pixel in column i and row j covers [i, i + 1) x [j, j + 1), and
the edges of a box are numbers on the same axes. A matrix is (3, 3) float64 and maps columns
(x, y, 1) of a picture to those of the network's input.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.samples.settings import Augmentation

Matrix = NDArray[np.float64]
Boxes = NDArray[np.float32]
# (K, 2, 4): x and y of the corners of K mapped boxes, in order round each, network pixels.
Corners = NDArray[np.float64]
ClassIds = NDArray[np.int64]

# The value that the server's letterbox pads with.
PAD_VALUE: Final = 114
# Fractional bits of the corners that OpenCV draws a polygon through.
CORNER_BITS: Final = 4
# Bilinear interpolation reads pixels this far beyond a point.
MARGIN: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image and the objects on it.

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
    return np.array([[factor, 0, 0], [0, factor, 0], [0, 0, 1]], dtype=np.float64)


def random_affine(
    height: int, width: int, settings: Augmentation, rng: np.random.Generator
) -> Matrix:
    """A random rotation, scale, shear and shift about the middle of an input; size in pixels."""
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


def quarter_turned(picture: Picture) -> Picture:
    """The picture and its boxes, turned left by 90 degrees."""
    width = picture.image.shape[1]
    x1, y1, x2, y2 = picture.boxes_xyxy.T
    boxes = np.stack([y1, width - x2, y2, width - x1], axis=1)
    return Picture(np.ascontiguousarray(np.rot90(picture.image)), boxes, picture.class_ids)


def in_view(
    canvas: NDArray[np.uint8], picture: Picture, matrix: Matrix, settings: Augmentation
) -> Picture:
    """A canvas with the boxes of a mapped picture that are still visible on it.

    A turned box becomes the smallest upright box around its visible part. A box of which too little
    is visible is dropped.
    """
    return visible(canvas, box_corners(picture, matrix), picture.class_ids, settings)


def box_corners(picture: Picture, matrix: Matrix) -> Corners:
    """The corners of a picture's boxes after a map."""
    corners = picture.boxes_xyxy[:, [0, 2, 2, 0, 1, 1, 3, 3]].reshape(-1, 2, 4)
    mapped: Corners = matrix[:2, :2] @ corners + matrix[:2, 2:]
    return mapped


def visible(
    canvas: NDArray[np.uint8], corners: Corners, class_ids: ClassIds, settings: Augmentation
) -> Picture:
    """`in_view` for boxes that are already mapped, perhaps from several pictures."""
    limits = np.array([canvas.shape[1], canvas.shape[0]])
    # Inside a rectangle, a convex shape extends along an axis as far as it does within the
    # rectangle's range of the other axis, clipped to the rectangle.
    low, high = np.clip(_reach(corners, limits), 0, limits).astype(np.float32)
    sides = high - low
    keep = ((sides > 0) & (sides >= settings.min_side)).all(axis=1)
    whole = (corners.max(axis=2) - corners.min(axis=2)).prod(axis=1)
    keep &= sides.prod(axis=1) >= settings.min_visible * whole
    boxes = np.concatenate([low, high], axis=1)
    return Picture(canvas, boxes[keep], class_ids[keep])


def _reach(corners: Corners, limits: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far polygons extend along each axis, where the other axis is within 0 and its limit.

    Args:
        corners: The polygons' corners, in order.
        limits: (2,) int64, width and height in pixels.

    Returns:
        (2, K, 2) float64: the minimum and the maximum of each polygon's x and y; infinity and
        minus infinity if no part of it is within.
    """
    following = corners[:, :, [1, 2, 3, 0]]
    # The other axis.
    across, next_across, limit = corners[:, ::-1], following[:, ::-1], limits[::-1, None]
    rise = next_across - across
    touches = (np.minimum(across, next_across) <= limit) & (np.maximum(across, next_across) >= 0)
    # Where the part of each edge within the limits starts and ends, as shares of the edge.
    steps = np.clip(np.stack([across, next_across]), 0, limit) - across
    shares = steps / np.where(rise == 0, 1, rise)
    ends = corners + shares * (following - corners)
    low = np.where(touches, ends, np.inf).min(axis=(0, 3))
    high = np.where(touches, ends, -np.inf).max(axis=(0, 3))
    return np.stack([low, high])


def blank(height: int, width: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8, all padding."""
    return np.full((height, width, 3), PAD_VALUE, dtype=np.uint8)


def paint(canvas: NDArray[np.uint8], image: NDArray[np.uint8], matrix: Matrix) -> None:
    """Draw a mapped (h, w, 3) uint8 image on a (H, W, 3) uint8 canvas; the rest of it stays.

    Work is limited to the part of the canvas that the image covers, and to the part of the image
    that is visible there. Each pixel is resampled once, bilinearly, however many maps the matrix
    combines.
    """
    back = np.linalg.inv(matrix).astype(np.float64, copy=False)
    corners = _mapped((0, 0, image.shape[1], image.shape[0]), matrix)
    left, top, right, bottom = view = _pixels_round(corners, canvas)
    seen_left, seen_top, seen_right, seen_bottom = _pixels_round(_mapped(view, back), image, MARGIN)
    if left >= right or top >= bottom or seen_left >= seen_right or seen_top >= seen_bottom:
        return
    # OpenCV's origin is the middle of the first pixel, half a pixel from its edge.
    there = translation(-seen_left - 0.5, -seen_top - 0.5) @ back
    local = there @ translation(left + 0.5, top + 0.5)
    size = (right - left, bottom - top)
    # OpenCV warps four channels in less than half the time of three, with the same result.
    seen = cv2.cvtColor(image[seen_top:seen_bottom, seen_left:seen_right], cv2.COLOR_BGR2BGRA)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    # Replicated border pixels fill the last half pixel up to the image's edge; the mask cuts there.
    warped = cv2.warpAffine(seen, local[:2], size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    mask = _polygon(corners - (left + 0.5, top + 0.5), size)
    cv2.copyTo(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR), mask, canvas[top:bottom, left:right])


def flip(picture: Picture, *, vertically: bool = False) -> Picture:
    """Mirror left to right, or top to bottom."""
    height, width = picture.image.shape[:2]
    side, start, end = (height, 1, 3) if vertically else (width, 0, 2)
    boxes = picture.boxes_xyxy.copy()
    boxes[:, [start, end]] = side - boxes[:, [end, start]]
    image = np.asarray(cv2.flip(picture.image, 0 if vertically else 1), dtype=np.uint8)
    return Picture(image, boxes, picture.class_ids)


def _mapped(rectangle_xyxy: tuple[int, int, int, int], matrix: Matrix) -> NDArray[np.float64]:
    """(4, 2) float64: the corners of a rectangle after a map, in order."""
    left, top, right, bottom = rectangle_xyxy
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    mapped: NDArray[np.float64] = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return mapped


def _pixels_round(
    corners: NDArray[np.float64], image: NDArray[np.uint8], margin: int = 0
) -> tuple[int, int, int, int]:
    """The left, top, right and bottom of the pixels of an image that contain (4, 2) corners."""
    x, y = corners.T.tolist()
    left, right = _span(x, image.shape[1], margin)
    top, bottom = _span(y, image.shape[0], margin)
    return left, top, right, bottom


def _span(coordinates: list[float], limit: int, margin: int) -> tuple[int, int]:
    """The first pixel that contains one of some coordinates, and the pixel after the last."""
    first, end = math.floor(min(coordinates)) - margin, math.ceil(max(coordinates)) + margin
    return min(max(first, 0), limit), min(max(end, 0), limit)


def _polygon(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(h, w) uint8: 255 within (4, 2) corners, whose origin is the middle of the first pixel."""
    mask = np.zeros(size[::-1], dtype=np.uint8)
    points = np.rint(corners * (1 << CORNER_BITS)).astype(np.int32)
    cv2.fillConvexPoly(mask, points, (255,), shift=CORNER_BITS)
    return mask
