"""Samples made of several pictures: Mosaic (YOLOv4, 2004.10934) and YOLOX's MixUp (1710.09412)."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.samples.geometry import (
    Matrix,
    Picture,
    blank,
    box_corners,
    in_view,
    paint,
    random_affine,
    scaling,
    translation,
    visible,
)
from model_export.samples.settings import Augmentation


def mosaic(
    pictures: Sequence[Picture],
    height: int,
    width: int,
    settings: Augmentation,
    rng: np.random.Generator,
) -> Picture:
    """Put four pictures round a random centre, and map the whole by one random affine map.

    As in YOLOX, the four meet in the middle half of a canvas of twice the size, which the map then
    brings into view. That canvas is never painted: each picture is mapped once.

    Args:
        pictures: Four, of any sizes: top left, top right, bottom left, bottom right.
        height: Network height in pixels.
        width: Network width in pixels.
        settings: How far to move it, and which boxes to drop.
        rng: The sample's randomness.

    Returns:
        A picture of the network's size; padding where no picture lies.
    """
    centre_x, centre_y = rng.uniform(0.5, 1.5, size=2) * (width, height)
    view = translation(-width / 2, -height / 2)
    move = random_affine(height, width, settings, rng) @ view @ translation(centre_x, centre_y)
    canvas = blank(height, width)
    corners = []
    for picture, (right, down) in zip(pictures, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        fit = fitting(picture, height, width)
        tall, wide = (fit[0, 0] * side for side in picture.image.shape[:2])
        matrix = move @ translation((right - 1) * wide, (down - 1) * tall) @ fit
        paint(canvas, picture.image, matrix)
        corners.append(box_corners(picture, matrix))
    # All boxes at once: the time depends on the number of calls, not of boxes.
    class_ids = np.concatenate([picture.class_ids for picture in pictures])
    return visible(canvas, np.concatenate(corners), class_ids, settings)


def mix_up(
    first: Picture, second: Picture, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """Blend a second picture into the first, half and half, and keep the boxes of both.

    The second is fitted to the first's size, rescaled at random, and put at a random place: if it
    became larger it is cropped, if smaller it is padded.
    """
    height, width = first.image.shape[:2]
    factor = rng.uniform(*settings.mixup_scale)
    offset_x, offset_y = rng.uniform(0, 1, size=2) * (1 - factor) * (width, height)
    fit = fitting(second, height, width)
    canvas = blank(height, width)
    matrix = translation(offset_x, offset_y) @ scaling(factor) @ fit
    part = place(canvas, second, matrix, settings)
    blend = np.asarray(cv2.addWeighted(first.image, 0.5, canvas, 0.5, 0), dtype=np.uint8)
    return united(blend, [first, part])


def moved(
    picture: Picture, height: int, width: int, settings: Augmentation, rng: np.random.Generator
) -> Picture:
    """Fit one picture to the network's size and apply a random affine map, in one resampling."""
    canvas = blank(height, width)
    matrix = random_affine(height, width, settings, rng) @ fitting(picture, height, width)
    return place(canvas, picture, matrix, settings)


def fitting(picture: Picture, height: int, width: int) -> Matrix:
    """Scale a picture as the letterbox does, its top left corner at the origin."""
    image_height, image_width = picture.image.shape[:2]
    return scaling(min(height / image_height, width / image_width))


def place(
    canvas: NDArray[np.uint8],
    picture: Picture,
    matrix: Matrix,
    settings: Augmentation,
) -> Picture:
    """Paint a mapped picture on a canvas; returns the canvas with the boxes still visible on it."""
    paint(canvas, picture.image, matrix)
    return in_view(canvas, picture, matrix, settings)


def united(canvas: NDArray[np.uint8], parts: Sequence[Picture]) -> Picture:
    """One image with the boxes of several pictures, all in pixels of it."""
    return Picture(
        canvas,
        np.concatenate([part.boxes_xyxy for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )
