"""The stages of an image beside the model: decoding and fitting, and from rows to boxes."""

import base64
import binascii
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import Letterbox, LetterboxMode, fit_to_model
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.engine.base import ImageRows
from service.errors import InvalidImageError, NotFiniteError
from service.imaging.kinds import is_url
from service.imaging.memory import HeldMemory, ImageMemory
from service.imaging.read import Photo, read_image, too_many_pixels
from service.observe.tracing.trace import Stretch

Pixels = NDArray[np.uint8]

FROM_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image as a client sent it.

    Attributes:
        content: The bytes of an image file, or their base64 form.
        encoding: Which of the two `content` is.
        filename: The client's name for the image.
    """

    content: bytes
    encoding: Literal["binary", "base64"] = "binary"
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class PixelSource:
    """One image whose pixels a client sent.

    Attributes:
        pixels: (h, w, 3) uint8, RGB.
        filename: The client's name for the image.
    """

    pixels: Pixels
    filename: str | None = None


Source = ImageSource | PixelSource


@dataclass(slots=True)
class StageSeconds:
    """How long an image spent in each stage, in seconds; filled in as it goes through them.

    Attributes:
        decode: Reading the file, and fitting it to the network.
        queue: Waiting for a batch.
        inference: The batch's time in the network.
        postprocess: From rows to boxes.
        decode_at: `time.monotonic()` when the stage began; likewise those below.
        queue_at: See above.
        inference_at: See above.
        postprocess_at: See above.
        batch: The link to the image's batch, for its trace.
    """

    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    decode_at: float = 0.0
    queue_at: float = 0.0
    inference_at: float = 0.0
    postprocess_at: float = 0.0
    batch: object = None

    def stretches(self) -> list[Stretch]:
        """The stages in the order in which they began."""
        stages = [
            Stretch("decode", self.decode_at, self.decode),
            Stretch("queue", self.queue_at, self.queue),
            Stretch("inference", self.inference_at, self.inference),
            Stretch("postprocess", self.postprocess_at, self.postprocess),
        ]
        return sorted(stages, key=attrgetter("began"))


@dataclass(frozen=True, slots=True)
class DetectedImage:
    """The detections in one image.

    Attributes:
        width: Width of the upright image in pixels.
        height: Height of the upright image in pixels.
        detections: Boxes in pixels of the image, clipped to it, best first.
        seconds: Where the time went.
        photo: The image itself, if the task asked to keep it.
        letterbox: The position of the image in the network's input.
        rows: (A, 4 + 1 + C) float32, the network's raw output, if the task asked to keep it.
    """

    width: int
    height: int
    detections: Detections
    seconds: StageSeconds
    photo: Photo | None
    letterbox: Letterbox
    rows: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to detect in.

    Attributes:
        source: The image.
        options: Thresholds, suppression and classes.
        keep_pixels: Whether the result is to hold the decoded image.
        keep_rows: Whether the result is to hold every raw row of the network's output.
        is_watched: Whether it is a client's, which others may look at as well.
        memory: The memory that is held already to decode it.
    """

    source: Source
    options: DetectionOptions
    keep_pixels: bool = False
    keep_rows: bool = False
    is_watched: bool = True
    memory: HeldMemory | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as the network takes it.

    Attributes:
        tensor: (H, W, 3) uint8, BGR, network pixels.
        confidence: The objectness from which on a row of the network's output is needed, 0 to 1.
        letterbox: Maps boxes back to the image's pixels.
        photo: The image itself, if the task asked to keep it.
        needs_all_rows: Whether no row of the network's output may be left out.
    """

    tensor: Pixels
    confidence: float
    letterbox: Letterbox
    photo: Photo | None
    needs_all_rows: bool = False


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages beside the model; several threads may run them at once.

    Attributes:
        contract: The model's contract.
        letterbox_mode: How images are fitted into its input.
        max_image_pixels: Maximum width times height of an image.
        memory: Where images take their memory from; None for no bound.
    """

    contract: ModelContract
    letterbox_mode: LetterboxMode
    max_image_pixels: int
    memory: ImageMemory | None = None

    def prepare(self, task: ImageTask) -> PreparedImage:
        """Decode an image and fit it into the network's input.

        Raises:
            ServiceError: The image cannot be used; the error says why.
        """
        source = task.source
        if isinstance(source, PixelSource):
            photo = self._sent(source.pixels)
        else:
            photo = self._decoded(source, task)
        size = photo.height, photo.width
        tensor, letterbox = fit_to_model(photo.pixels, self.contract, self.letterbox_mode, size)
        if isinstance(source, PixelSource):
            # The fitted image is smaller than the one that was sent, so it is turned to BGR.
            tensor = np.ascontiguousarray(tensor[..., ::-1])
        kept = photo if task.keep_pixels else None
        return PreparedImage(tensor, task.options.confidence, letterbox, kept, task.keep_rows)

    def _decoded(self, source: ImageSource, task: ImageTask) -> Photo:
        spec = self.contract.input
        return read_image(
            _content(source),
            self.max_image_pixels,
            fit=None if task.keep_pixels else (spec.height, spec.width),
            memory=task.memory or self.memory,
        )

    def upright(self, source: Source) -> Photo:
        """The whole image: upright, BGR, in its full size.

        Raises:
            ServiceError: It cannot be read, or there is no memory for it at the moment.
        """
        if isinstance(source, PixelSource):
            height, width = source.pixels.shape[:2]
            return Photo(np.ascontiguousarray(source.pixels[..., ::-1]), height, width)
        return read_image(_content(source), self.max_image_pixels, memory=self.memory)

    def _sent(self, pixels: Pixels) -> Photo:
        """The pixels that a client sent, which are RGB."""
        height, width = pixels.shape[:2]
        if width * height > self.max_image_pixels:
            raise too_many_pixels(width, height, self.max_image_pixels)
        return Photo(pixels, height, width)

    def postprocess(
        self, task: ImageTask, prepared: PreparedImage, rows: ImageRows, seconds: StageSeconds
    ) -> DetectedImage:
        """Find the objects in the rows of a prepared image.

        Args:
            task: The image's options.
            prepared: The image that the rows are of.
            rows: The network's output.
            seconds: Becomes part of the result.

        Raises:
            NotFiniteError: The rows hold values that are infinite or NaN.
        """
        if not np.isfinite(rows.raw).all():
            raise NotFiniteError("the model's output for this image holds infinite or NaN values")
        letterbox = prepared.letterbox
        detections = find_objects(rows.raw, letterbox, self.contract, task.options, rows.cells)
        # The engine may use the memory of its output again.
        kept = rows.raw.astype(np.float32) if task.keep_rows else None
        width, height = letterbox.image_width, letterbox.image_height
        return DetectedImage(width, height, detections, seconds, prepared.photo, letterbox, kept)


def _content(source: ImageSource) -> bytes:
    """The bytes of the image's file."""
    return _unbase64(source.content) if source.encoding == "base64" else source.content


def _unbase64(text: bytes) -> bytes:
    """Decode base64, or the base64 in a `data:` URI.

    The URL-safe alphabet is taken as well, and padding may be missing, as in many clients' output.
    """
    if text[:5].lower() == b"data:":
        header, _, text = text.partition(b",")
        if not header.lower().endswith(b";base64"):
            raise InvalidImageError("a data: URI must be base64")
        text = unquote_to_bytes(text) if b"%" in text else text
    elif is_url(text):
        raise InvalidImageError("URLs are not fetched; send the bytes of the image in base64")
    text = b"".join(text.split()).rstrip(b"=").translate(FROM_URL_SAFE)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise InvalidImageError(f"this is neither base64 nor a data: URI: {error}") from error
