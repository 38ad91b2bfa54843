"""Sheets of samples with their boxes drawn on them."""

import colorsys
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from model_export.samples.geometry import Picture, blank

# Pixels between two pictures of a sheet.
GAP: Final = 4
# Share of the colour circle between two classes: the golden ratio keeps any number of them apart.
HUE_STEP: Final = 0.618


def sheet(
    pictures: Sequence[Picture], class_names: Sequence[str], columns: int
) -> NDArray[np.uint8]:
    """Lay out pictures of one size in rows, their boxes and class names drawn on them.

    Args:
        pictures: At least one.
        class_names: Class id to name.
        columns: Pictures in a row.

    Returns:
        (h, w, 3) uint8, BGR.
    """
    height, width = (side + GAP for side in pictures[0].image.shape[:2])
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = blank(rows * height - GAP, columns * width - GAP)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        top, left = row * height, column * width
        drawn = with_boxes(picture, class_names)
        canvas[top : top + height - GAP, left : left + width - GAP] = drawn
    return canvas


def with_boxes(picture: Picture, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of a picture's image, (h, w, 3) uint8 BGR, with its boxes and class names drawn."""
    image = Image.fromarray(np.ascontiguousarray(picture.image[:, :, ::-1]))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=11)
    for box, class_id in zip(picture.boxes_xyxy.tolist(), picture.class_ids.tolist(), strict=True):
        color = class_color(class_id)
        # A box ends behind its last pixel; one of less than a pixel still needs one.
        far = max(box[0], box[2] - 1), max(box[1], box[3] - 1)
        draw.rectangle((box[0], box[1], *far), outline=color)
        corner = (box[0] + 2, box[1] + 1)
        draw.rectangle(draw.textbbox(corner, class_names[class_id], font), fill=color)
        draw.text(corner, class_names[class_id], fill="black", font=font)
    return np.ascontiguousarray(np.asarray(image)[:, :, ::-1])


def class_color(class_id: int) -> tuple[int, int, int]:
    """The RGB of a class, bright enough for black letters."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * HUE_STEP % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
