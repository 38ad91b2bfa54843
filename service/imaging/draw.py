"""Draws detections onto their image."""

import asyncio
import io
from collections.abc import Callable
from math import ceil
from typing import Final, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.core.decode import Detections
from service.errors import NotAcceptableError
from service.imaging.colors import Rgb, class_color, text_color
from service.imaging.labels import LabelPlaces
from service.queue.threads import ThreadPool

PictureType = Literal["image/png", "image/jpeg"]

MIN_FONT_PX: Final = 11
MAX_SCALE: Final = 10
# Pixels of the longer side for which lines and letters have their plain size.
PLAIN_SIDE: Final = 640
MAX_JPEG_SIDE: Final = 65_500
BAND_PIXELS: Final = 1_000_000
DARK: Final = (20, 20, 20)

Box = tuple[float, float, float, float]


def draw_detections(
    pixels: NDArray[np.uint8],
    detections: Detections,
    class_names: tuple[str, ...],
    picture_type: PictureType,
) -> bytes:
    """Draw each detection's box with its class name and score.

    Args:
        pixels: (h, w, 3) uint8, BGR.
        detections: Boxes in pixels of this image, best first.
        class_names: A name for each class id.
        picture_type: The format to encode.

    Returns:
        The bytes of the picture file.

    Raises:
        NotAcceptableError: The format cannot hold an image of this size.
    """
    if picture_type == "image/jpeg" and max(pixels.shape) > MAX_JPEG_SIDE:
        raise NotAcceptableError(f"a JPEG side has at most {MAX_JPEG_SIDE} pixels; ask for PNG")
    picture = _as_picture(pixels)
    _draw_all(picture, detections, class_names)
    buffer = io.BytesIO()
    if picture_type == "image/png":
        # Level 1 is several times faster than the default, for a file that is a tenth larger.
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _as_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """A Pillow image of BGR pixels, made in bands, so that no other copy of all is held."""
    height, width, _ = pixels.shape
    picture, rows = Image.new("RGB", (width, height)), max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels[top : top + rows, :, ::-1])
        picture.paste(Image.fromarray(band), (0, top))
    return picture


def _draw_all(picture: Image.Image, detections: Detections, class_names: tuple[str, ...]) -> None:
    """Draw the boxes, then the labels, so that no line crosses a label; the best on top."""
    draw = ImageDraw.Draw(picture)
    scale = min(max(picture.size) / PLAIN_SIDE, MAX_SCALE)
    boxes: list[Box] = [tuple(box) for box in detections.boxes_xyxy.tolist()]
    colors = [class_color(class_id) for class_id in detections.class_ids.tolist()]
    for box, color in reversed(list(zip(boxes, colors, strict=True))):
        _draw_box(draw, box, color, scale)
    labels = [
        f"{class_names[class_id]} {score:.2f}"
        for class_id, score in zip(detections.class_ids, detections.scores, strict=True)
    ]
    style = LabelStyle(scale, picture.size)
    places = LabelPlaces(*picture.size)
    placed = [style.place(label, box, places) for label, box in zip(labels, boxes, strict=True)]
    for label, color in reversed(list(zip(placed, colors, strict=True))):
        if label is not None:
            style.draw(draw, label, color)


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


class DrawingPool:
    """Threads that draw, and a bound on the decoded images that are kept for them.

    An image that is drawn on is kept in all its pixels, so each takes a slot of the pool before it
    is decoded.

    Args:
        count: Number of threads, and of slots.
    """

    def __init__(self, count: int) -> None:
        self.threads = ThreadPool(count, "draw")
        self.free_slots = asyncio.Semaphore(count)

    def start(self) -> None:
        """Start the threads."""
        self.threads.start()

    def stop(self) -> None:
        """End the threads, without waiting for pictures that are being drawn."""
        self.threads.stop()


class DrawingSlot:
    """The slot of one image, from before it is decoded until it is drawn.

    Leaving the context gives the slot back if it is held and nothing is being drawn.

    Args:
        pool: Where the slot is taken.
    """

    def __init__(self, pool: DrawingPool) -> None:
        self._pool = pool
        self._held = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held:
            self._pool.free_slots.release()

    async def acquire(self) -> None:
        """Wait until a slot is free, and take it."""
        await self._pool.free_slots.acquire()
        self._held = True

    async def draw(self, work: Callable[[], bytes]) -> bytes:
        """Draw on a thread, and give the slot back when that ends.

        A caller that is cancelled leaves the thread drawing, and the slot taken until it is done.
        """
        drawing = self._pool.threads.submit(work)
        self._held = False
        drawing.add_done_callback(lambda _: self._pool.free_slots.release())
        return await asyncio.shield(drawing)
