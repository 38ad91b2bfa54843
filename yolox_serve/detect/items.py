"""The images to look into, one after the other: files, and frames of videos."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from yolox_client import UnusableImageError
from yolox_serve.detect.sources import Still, Video

Pixels = NDArray[np.uint8]
# How a frame travels: every pixel within this process, and few bytes to a server.
FrameCoding = Literal[".bmp", ".jpg"]

JPEG_QUALITY: Final = 95
USUAL_FRAMES_PER_S: Final = 25.0
# Cameras that say nonsense say 0, or a thousand and more.
MAX_FRAMES_PER_S: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Item:
    """An image to look into.

    Attributes:
        source: Name of its file or video.
        read: Gives the bytes of an image file; raises `UnusableImageError`.
        frame: Number of the frame in its video, from 0; None for an image file.
        time_s: Time of the frame, in seconds.
        pixels: (h, w, 3) uint8 BGR, the frame.
    """

    source: str
    read: Callable[[], bytes]
    frame: int | None = None
    time_s: float | None = None
    pixels: Pixels | None = None


class OpenVideo:
    """A video that can be read.

    Args:
        video: The video.
        capture: OpenCV's reader of it.
    """

    def __init__(self, video: Video, capture: cv2.VideoCapture) -> None:
        self.video = video
        self._capture = capture
        told = capture.get(cv2.CAP_PROP_FPS)
        usable = np.isfinite(told) and 0 < told <= MAX_FRAMES_PER_S
        self.frames_per_s = float(told) if usable else USUAL_FRAMES_PER_S
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = 0 if video.live else max(0, int(count))

    def items(self, every: int, first: int, coding: FrameCoding) -> Iterator[Item]:
        """One frame of each `every`.

        Args:
            every: Number of frames of which one is given.
            first: The first frame that is wanted.
            coding: How frames become files.
        """
        number = 0
        while self._capture.grab():
            if number % every == 0 and number >= first:
                read, frame = self._capture.retrieve()
                if read:
                    yield self._item(number, np.asarray(frame, np.uint8), coding)
            number += 1

    def _item(self, number: int, pixels: Pixels, coding: FrameCoding) -> Item:
        time_s = round(number / self.frames_per_s, 3)
        return Item(self.video.name, lambda: encoded(pixels, coding), number, time_s, pixels)


@contextmanager
def open_video(video: Video) -> Iterator[OpenVideo]:
    """Open a video file, camera or stream.

    Raises:
        UnusableImageError: It cannot be opened.
    """
    capture = cv2.VideoCapture()
    # OpenCV prints warnings of its own about every camera and file that it cannot open.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        if not capture.open(video.address):
            kind = "camera or stream" if video.live else "video"
            raise UnusableImageError(f"cannot open the {kind} {video.name}")
        yield OpenVideo(video, capture)
    finally:
        capture.release()


def still_item(still: Still) -> Item:
    """An image file as an item."""

    def read() -> bytes:
        try:
            return still.path.read_bytes()
        except OSError as error:
            why = error.strerror or str(error)
            raise UnusableImageError(f"cannot be read: {why}") from error

    return Item(still.name, read)


def encoded(pixels: Pixels, coding: FrameCoding) -> bytes:
    """(h, w, 3) uint8 BGR as an image file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if coding == ".jpg" else []
    content: bytes = cv2.imencode(coding, pixels, quality)[1].tobytes()
    return content
