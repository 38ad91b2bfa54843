"""The whole path of an image: bytes -> pixels -> letterbox -> batch -> boxes -> image pixels."""

import asyncio
import base64
import binascii
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeVar

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from service.batcher import Batcher, is_past
from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.letterbox import Letterbox, LetterboxMode, letterbox
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.cpus import cpus_of_process
from service.engine import Engine
from service.errors import ClientLeftError, DeadlineError, InvalidImageError, ServiceError
from service.images import read_image
from service.metrics import Metrics
from service.picture import PictureType, draw_detections
from service.settings import Settings

Pixels = NDArray[np.uint8]
T = TypeVar("T")

FAILURES_UNTIL_UNREADY: Final = 3

log = structlog.get_logger(__name__)


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
class _Prepared:
    tensor: Pixels
    letterbox: Letterbox
    pixels: Pixels | None


class Detector:
    """Takes images through decoding, the batcher and suppression; all heavy work is on threads.

    Args:
        engine: What runs batches.
        instances: How many of them at once.
        letterbox_mode: How images are fitted into the network's input.
        settings: Limits and sizes.
        metrics: Where to count.
    """

    def __init__(
        self,
        engine: Engine,
        instances: int,
        letterbox_mode: LetterboxMode,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.contract: ModelContract = engine.contract
        self.provider = engine.provider
        self._letterbox_mode = letterbox_mode
        self._settings = settings
        self._metrics = metrics
        self._batcher = Batcher(
            engine,
            metrics,
            instances=instances,
            max_queue_images=settings.max_queue_images,
            max_batch_delay_s=settings.max_batch_delay_ms / 1000,
        )
        threads = settings.decode_threads or cpus_of_process(settings.workers)
        # Apart, so that finished work never waits behind images that are still to be decoded.
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._finishers = ThreadPoolExecutor(threads, thread_name_prefix="postprocess")
        # Large images are decoded one at a time: each can take many times its pixels in memory.
        self._large_image = threading.Lock()
        self._heartbeat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the batcher, and see one inference through before anyone calls this ready."""
        # The images are the parallel work here; threads inside one resize only get in the way.
        cv2.setNumThreads(1)
        self._batcher.start()
        await self._probe()
        self._heartbeat = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Finish accepted work, then end every task and thread."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        await self._batcher.stop()
        # A decoder can be at a damaged image for long; nobody waits for that one any more.
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._finishers.shutdown(wait=False, cancel_futures=True)

    def refuse_new(self) -> None:
        """Begin to drain: be unready, and take no new work. Safe in a signal handler."""
        self._batcher.refuse_new()

    def check_accepting(self) -> None:
        """See, before reading a body, whether there is any place for its images.

        Raises:
            QueueFullError: Every place is taken.
            DrainingError: The server is shutting down.
        """
        self._batcher.check_accepting()

    def unready_reason(self) -> str | None:
        """Why no new work should be sent here, or None."""
        if self._batcher.draining:
            return "the server is shutting down"
        if self._batcher.failures_in_a_row >= FAILURES_UNTIL_UNREADY:
            return f"the last {self._batcher.failures_in_a_row} batches failed"
        window, last = self._settings.ready_window_s, self._batcher.last_success
        if last is None or time.monotonic() - last > window:
            return f"no inference has succeeded within the last {window:g} s"
        return None

    async def detect_all(
        self,
        sources: Sequence[ImageSource],
        options: DetectionOptions,
        deadline: float,
        *,
        keep_pixels: bool = False,
    ) -> list[DetectedImage | ServiceError]:
        """Detect in several images at once; one bad image harms no other.

        Args:
            sources: The images.
            options: Thresholds, suppression and classes.
            deadline: `time.monotonic()` after which a waiting image is dropped.
            keep_pixels: Give the decoded images back too, to draw on.

        Returns:
            For each image, in order, what was found or why nothing was.
        """
        return await asyncio.gather(
            *(self._detect(source, options, deadline, keep_pixels) for source in sources)
        )

    async def draw(self, image: DetectedImage, picture_type: PictureType) -> bytes:
        """The picture file of an image, whose pixels were kept, with its boxes drawn."""
        if image.pixels is None:
            raise ValueError("the pixels were not kept")
        work = partial(
            draw_detections,
            image.pixels,
            image.detections,
            self.contract.class_names,
            picture_type,
        )
        return await asyncio.get_running_loop().run_in_executor(self._finishers, work)

    async def _one_image(
        self, source: ImageSource, options: DetectionOptions, deadline: float, keep_pixels: bool
    ) -> DetectedImage:
        with self._batcher.reserve() as place:
            prepared, decode_s = await _timed(
                self._decoders, lambda: self._prepare(source, keep_pixels)
            )
            inference = await self._batcher.infer(place, prepared.tensor, deadline)
        way_back = prepared.letterbox
        detections, postprocess_s = await _timed(
            self._finishers, lambda: find_objects(inference.raw, way_back, self.contract, options)
        )
        seconds = StageSeconds(decode_s, inference.queue_s, inference.inference_s, postprocess_s)
        self._count(detections, seconds)
        return DetectedImage(
            way_back.image_width, way_back.image_height, detections, seconds, prepared.pixels
        )

    async def _detect(
        self, source: ImageSource, options: DetectionOptions, deadline: float, keep_pixels: bool
    ) -> DetectedImage | ServiceError:
        result: DetectedImage | ServiceError
        try:
            result = await self._one_image(source, options, deadline, keep_pixels)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = DeadlineError.slug if is_past(deadline) else ClientLeftError.slug
            raise
        except ServiceError as error:
            outcome, result = error.slug, error
        except Exception:
            # A bug, or a decoder's; the other images of the request have nothing to do with it.
            log.exception("image failed")
            outcome, result = ServiceError.slug, ServiceError("an unexpected error")
        finally:
            self._metrics.images.labels(outcome).inc()
        return result

    def _prepare(self, source: ImageSource, keep_pixels: bool) -> _Prepared:
        content = _unbase64(source.content) if source.encoding == "base64" else source.content
        spec = self.contract.input
        photo = read_image(
            content,
            self._settings.max_image_pixels,
            fit=None if keep_pixels else (spec.height, spec.width),
            large_image=self._large_image,
        )
        tensor, way_back = letterbox(
            photo.pixels,
            spec.height,
            spec.width,
            mode=self._letterbox_mode,
            pad_value=spec.pad_value,
            multiple=max(self.contract.strides),
            image_size=(photo.height, photo.width),
        )
        return _Prepared(tensor, way_back, photo.pixels if keep_pixels else None)

    def _count(self, detections: Detections, seconds: StageSeconds) -> None:
        for stage in ("decode", "queue", "inference", "postprocess"):
            self._metrics.stage_duration.labels(stage).observe(getattr(seconds, stage))
        for class_id, boxes in zip(
            *np.unique(detections.class_ids, return_counts=True), strict=True
        ):
            name = self.contract.class_names[class_id]
            self._metrics.detections.labels(name).inc(int(boxes))

    async def _beat(self) -> None:
        """Keep an idle or failing server's readiness true to life by small real inferences."""
        period = self._settings.ready_window_s / 3
        while True:
            await asyncio.sleep(period)
            last = self._batcher.last_success
            stale = last is None or time.monotonic() - last > period
            if stale or self._batcher.failures_in_a_row:
                await self._probe()

    async def _probe(self) -> None:
        spec = self.contract.input
        grey = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
        deadline = time.monotonic() + self._settings.ready_window_s
        try:
            # Also through the decoders, so that a server whose decoders hang is not ready.
            await asyncio.get_running_loop().run_in_executor(self._decoders, len, grey)
            with self._batcher.reserve() as place:
                await self._batcher.infer(place, grey, deadline)
        except ServiceError as error:
            log.warning("probe failed", detail=error.detail)


def promised_sizes(contract: ModelContract, mode: LetterboxMode) -> list[tuple[int, int]]:
    """Every network (height, width) that a letterbox of this mode can make."""
    height, width, step = contract.input.height, contract.input.width, max(contract.strides)
    if mode == "square":
        return [(height, width)]
    tall = {(height, narrow) for narrow in range(step, width + 1, step)}
    wide = {(low, width) for low in range(step, height + 1, step)}
    return sorted(tall | wide)


async def _timed(pool: ThreadPoolExecutor, work: Callable[[], T]) -> tuple[T, float]:
    """Run work on a pool's thread; gives its result and the seconds it took, waiting included."""
    loop = asyncio.get_running_loop()
    started = time.monotonic()
    result = await loop.run_in_executor(pool, work)
    return result, time.monotonic() - started


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
