"""Draws detections onto their image."""

import asyncio
import io
from collections.abc import Callable
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.core.decode import Detections
from service.errors import NotAcceptableError
from service.queue.threads import ThreadPool
from yolox_client.drawing.boxes import DrawnBox, draw_boxes

PictureType = Literal["image/png", "image/jpeg"]

MAX_JPEG_SIDE: Final = 65_500
BAND_PIXELS: Final = 1_000_000


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
    draw_boxes(picture, _drawn(detections, class_names))
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


def _drawn(detections: Detections, class_names: tuple[str, ...]) -> list[DrawnBox]:
    """Each detection as a box in the colour of its class, with the name and the score."""
    rows = zip(
        detections.boxes_xyxy.tolist(),
        detections.class_ids.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        DrawnBox.of_class((x1, y1, x2, y2), class_id, f"{class_names[class_id]} {score:.2f}")
        for (x1, y1, x2, y2), class_id, score in rows
    ]


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
