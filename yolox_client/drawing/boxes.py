"""Draws boxes and labels onto a Pillow picture; the server's pictures are drawn by it too."""

from collections.abc import Sequence
from math import ceil
from typing import Final, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from yolox_client.drawing.colors import Rgb, class_color, text_color
from yolox_client.drawing.labels import LabelPlaces

MIN_FONT_PX: Final = 11
MAX_SCALE: Final = 10
# Pixels of the longer side for which lines and letters have their plain size.
PLAIN_SIDE: Final = 640
DARK: Final = (20, 20, 20)

Box = tuple[float, float, float, float]


class DrawnBox(NamedTuple):
    """A box to draw.

    Attributes:
        box_xyxy: Its corners, in pixels of the picture.
        color: Its colour.
        label: The text of its label.
    """

    box_xyxy: Box
    color: Rgb
    label: str

    @classmethod
    def of_class(cls, box_xyxy: Box, class_id: int, label: str) -> "DrawnBox":
        """A box in the colour of its class."""
        return cls(box_xyxy, class_color(class_id), label)


def draw_boxes(picture: Image.Image, boxes: Sequence[DrawnBox]) -> None:
    """Draw the boxes, then the labels, so that no line crosses a label; the first on top.

    Args:
        picture: An RGB picture, which is drawn on.
        boxes: The boxes, best first.
    """
    draw = ImageDraw.Draw(picture)
    scale = min(max(picture.size) / PLAIN_SIDE, MAX_SCALE)
    for box in reversed(boxes):
        _draw_box(draw, box.box_xyxy, box.color, scale)
    style = LabelStyle(scale, picture.size)
    places = LabelPlaces(*picture.size)
    placed = [style.place(box.label, box.box_xyxy, places) for box in boxes]
    for label, box in reversed(list(zip(placed, boxes, strict=True))):
        if label is not None:
            style.draw(draw, label, box.color)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, color: Rgb, scale: float) -> None:
    """Draw a frame with a dark line round it, which sets it off on bright ground.

    The frame is thinner on a box that it would fill.
    """
    side = min(box[2] - box[0], box[3] - box[1])
    width = max(1, min(round(3 * scale), round(side / 10)))
    edge = max(1, width // 4)
    x1, y1, x2, y2 = box
    if side > 8 * width:
        draw.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=DARK, width=edge)
    draw.rectangle(box, outline=color, width=width)


class PlacedLabel(NamedTuple):
    """A label that fits into its picture: its text, and its rectangle in pixels."""

    text: str
    rectangle: Box


class LabelStyle:
    """The size and look of the labels of one picture.

    Args:
        scale: How much larger than plain the letters are.
        size: Width and height of the picture, in pixels.
    """

    def __init__(self, scale: float, size: tuple[int, int]) -> None:
        # Letters are no higher than a third of the picture.
        pixels = min(max(MIN_FONT_PX, round(14 * scale)), max(1, size[1] // 3))
        self._font = ImageFont.load_default(pixels)
        self._pad = max(1, round(pixels / 5))
        self._max_width = size[0] - 2 * self._pad
        # All labels are of one height, whatever letters they have.
        _, top, _, bottom = self._font.getbbox("Ågjy|")
        self._top, self._height = top, ceil(bottom - top) + 2 * self._pad

    def place(self, label: str, box: Box, places: LabelPlaces) -> PlacedLabel | None:
        """Find a label's place in the picture; None if the picture is too narrow for any of it."""
        text = self._shortened(label)
        if not text:
            return None
        width = ceil(self._font.getlength(text)) + 2 * self._pad
        x, y = places.take(box, (width, self._height))
        return PlacedLabel(text, (x, y, x + width - 1, y + self._height - 1))

    def draw(self, draw: ImageDraw.ImageDraw, label: PlacedLabel, color: Rgb) -> None:
        """Draw a label where it was placed."""
        x, y, _, _ = label.rectangle
        draw.rectangle(label.rectangle, fill=color)
        corner = (x + self._pad, y + self._pad - self._top)
        draw.text(corner, label.text, fill=text_color(color), font=self._font)

    def _shortened(self, label: str) -> str:
        """As much of the label as the picture is wide enough for."""
        if self._font.getlength(label) <= self._max_width:
            return label
        lengths = range(len(label), 0, -1)
        shorter = (f"{label[:length].rstrip()}…" for length in lengths)
        return next((text for text in shorter if self._font.getlength(text) <= self._max_width), "")
