"""Pictures and videos with the boxes drawn in."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image

from service.imaging.read import read_image
from service.settings import MAX_IMAGE_PIXELS
from yolox_client import ImageResult
from yolox_client.convert import drawn_boxes
from yolox_client.drawing.boxes import draw_boxes
from yolox_serve.detect.formats import inside
from yolox_serve.detect.items import Pixels
from yolox_serve.detect.sources import SourceError

JPEG_QUALITY: Final = 90
WRITTEN_AS_THEY_ARE: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def save_picture(folder: Path, name: str, content: bytes | Pixels, result: ImageResult) -> None:
    """Save an image with its boxes; other forms than JPEG, PNG and WebP become JPEG.

    Args:
        folder: Where to save.
        name: Name of the image, perhaps with folders, which are made.
        content: An image file, or (h, w, 3) uint8 BGR.
        result: The detections of the image.

    Raises:
        OSError: The file cannot be written.
    """
    path = inside(folder, name)
    if path.suffix.lower() not in WRITTEN_AS_THEY_ARE:
        path = path.with_suffix(".jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = read_image(content, MAX_IMAGE_PIXELS).pixels if isinstance(content, bytes) else content
    _with_boxes(pixels, result).save(path, quality=JPEG_QUALITY)


def _with_boxes(pixels: Pixels, result: ImageResult) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
    draw_boxes(picture, drawn_boxes(result))
    return picture


class VideoFile:
    """An MP4 video with the boxes of each frame; it begins with the first frame.

    Args:
        path: Where to write.
        frames_per_s: Frames in a second.
    """

    def __init__(self, path: Path, frames_per_s: float) -> None:
        self._path = path
        self._frames_per_s = frames_per_s
        self._writer: cv2.VideoWriter | None = None

    def add(self, pixels: Pixels, result: ImageResult) -> None:
        """Write a frame.

        Args:
            pixels: (h, w, 3) uint8 BGR; all frames are of one size.
            result: Its detections.

        Raises:
            SourceError: The file cannot be written.
        """
        height, width, _ = pixels.shape
        if self._writer is None:
            self._writer = self._begun(width, height)
        drawn = np.asarray(_with_boxes(pixels, result))[:, :, ::-1]
        self._writer.write(np.ascontiguousarray(drawn))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def _begun(self, width: int, height: int) -> cv2.VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._path), code, self._frames_per_s, (width, height))
        if not writer.isOpened():
            raise SourceError(f"cannot write the video {self._path}; name it with .mp4")
        return writer
