"""What is done to one image, and what it is done with: decode and fit, then from rows to boxes."""

import base64
import binascii
import threading
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import Letterbox, LetterboxMode, fit_to_model
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.errors import InvalidImageError
from service.imaging.read import read_image

Pixels = NDArray[np.uint8]
RawRows = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image as a client sent it.

    Attributes:
        content: The bytes of an image file, or their base64 form.
        encoding: Which of the two.
        filename: The client's name for it.
    """

    content: bytes
    encoding: Literal["binary", "base64"] = "binary"
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class StageSeconds:
    """How long an image spent in each stage, in seconds."""

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0


@dataclass(frozen=True, slots=True)
class DetectedImage:
    """What was found in one image.

    Attributes:
        width: Width of the image in pixels, upright.
        height: Height likewise.
        detections: Boxes in pixels of the image, clipped to it, best first.
        seconds: Where the time went.
        pixels: (h, w, 3) uint8, BGR, upright, if they were to be kept.
    """

    width: int
    height: int
    detections: Detections
    seconds: StageSeconds
    pixels: Pixels | None


@dataclass(frozen=True, slots=True)
class Job:
    """An image, what to look for in it, and whether its pixels are wanted back."""

    source: ImageSource
    options: DetectionOptions
    keep_pixels: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as the network takes it.

    Attributes:
        tensor: (H, W, 3) uint8, BGR, network pixels.
        letterbox: The way back to the image's pixels.
        pixels: (h, w, 3) uint8, BGR, upright, if they were to be kept.
    """

    tensor: Pixels
    letterbox: Letterbox
    pixels: Pixels | None

    def detected(self, detections: Detections, seconds: StageSeconds) -> DetectedImage:
        """The image with what was found in it."""
        width, height = self.letterbox.image_width, self.letterbox.image_height
        return DetectedImage(width, height, detections, seconds, self.pixels)


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages beside the model; several threads may be in them at once.

    Attributes:
        contract: What the model promises.
        letterbox_mode: How images are fitted into its input.
        max_image_pixels: Width times height of an image at most.
        large_image: Held while a large image is decoded: each can take many times its pixels in
            memory, so that they are decoded one at a time.
    """

    contract: ModelContract
    letterbox_mode: LetterboxMode
    max_image_pixels: int
    large_image: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, job: Job) -> Prepared:
        """Decode an image and fit it into the network's input.

        Raises:
            ServiceError: It cannot be; the error says why.
        """
        source, spec = job.source, self.contract.input
        photo = read_image(
            _unbase64(source.content) if source.encoding == "base64" else source.content,
            self.max_image_pixels,
            fit=None if job.keep_pixels else (spec.height, spec.width),
            large_image=self.large_image,
        )
        size = photo.height, photo.width
        tensor, way_back = fit_to_model(photo.pixels, self.contract, self.letterbox_mode, size)
        return Prepared(tensor, way_back, photo.pixels if job.keep_pixels else None)

    def find(self, job: Job, prepared: Prepared, raw: RawRows) -> Detections:
        """The objects in (A, 4 + 1 + C) raw rows of a prepared image, in pixels of the image."""
        return find_objects(raw, prepared.letterbox, self.contract, job.options)


def _unbase64(text: bytes) -> bytes:
    """Decode base64 or a `data:` URI of it."""
    if text[:5].lower() == b"data:":
        header, _, text = text.partition(b",")
        if not header.lower().endswith(b";base64"):
            raise InvalidImageError("a data: URI must be base64")
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as error:
        raise InvalidImageError(f"this is neither base64 nor a data: URI: {error}") from error
