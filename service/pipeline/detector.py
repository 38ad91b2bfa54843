"""The pipeline as HTTP uses it: detections, annotated pictures, and whether all is well."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final

import cv2
import numpy as np
import structlog

from service.core.contract import ModelContract
from service.core.decode import Detections
from service.core.suppress import DetectionOptions
from service.errors import (
    ClientLeftError,
    DeadlineError,
    ModelFailedError,
    NotFiniteError,
    ServiceError,
)
from service.imaging.draw import DrawingPool, DrawingSlot, PictureType, draw_detections
from service.imaging.read import Photo
from service.observe.metrics import Metrics
from service.pipeline.base import Pipeline
from service.pipeline.stages import DetectedImage, ImageSource, ImageTask, Source, StageSeconds
from service.queue.admission import Admission, Permit, Upload
from service.queue.batcher import Batcher, is_past

FAILURES_UNTIL_UNREADY: Final = 3
# Pause after a probe, however often the model fails.
PROBE_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


class Detector:
    """Sends images through the pipeline and counts them; all heavy work is on threads.

    Args:
        contract: The model's contract.
        pipeline: From the bytes of an image to its boxes.
        batcher: The pipeline's.
        admission: The batcher's.
        metrics: Where to count.
        drawing: Draws boxes onto images.
        ready_window_s: Seconds for which one success counts as a sign of health.

    Attributes:
        contract: The same.
        failed_probes: How many probes have failed since one succeeded.
        draining: Whether the server is about to stop. It is unready then, but serves on.
    """

    def __init__(
        self,
        contract: ModelContract,
        pipeline: Pipeline,
        batcher: Batcher[Any, Any],
        admission: Admission,
        metrics: Metrics,
        drawing: DrawingPool,
        ready_window_s: float,
    ) -> None:
        self.contract = contract
        self._pipeline = pipeline
        self._batcher = batcher
        self._admission = admission
        self._metrics = metrics
        self._drawing = drawing
        self._ready_window_s = ready_window_s
        self._probe_task = _grey_image(contract)
        self._heartbeat: asyncio.Task[None] | None = None
        # Set when the model has failed an image: a probe tells whether it would fail any.
        self._suspicion = asyncio.Event()
        self._is_broken = False
        self.failed_probes = 0
        self.draining = False

    async def start(self) -> None:
        """Start all threads, and try one inference before anyone can call this ready."""
        # Images run in parallel; threads inside the resizing of one would only get in the way.
        cv2.setNumThreads(1)
        self._batcher.start()
        self._pipeline.start()
        self._drawing.start()
        await self._probe()
        self._heartbeat = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """Finish accepted work, then end every task and thread."""
        self.refuse_new()
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        await self._batcher.stop()
        self._pipeline.stop()
        self._drawing.stop()

    def drain(self) -> None:
        """Be unready from now on. Safe in a signal handler."""
        self.draining = True

    def refuse_new(self) -> None:
        """Let no request or image in any more; those that are in are finished."""
        self.drain()
        self._admission.close()

    def arrive(self) -> Upload:
        """Let a request in before its body is read, if there is room for an image of it.

        Raises:
            QueueFullError: There is no room.
            DrainingError: The server is shutting down.
        """
        return self._admission.admit_request()

    def refusal(self) -> ServiceError | None:
        """Why `arrive` would refuse a request now, or None."""
        return self._admission.refusal()

    def unready_reason(self) -> str | None:
        """Why this server should get no new work, or None."""
        if self.draining:
            return "the server is shutting down"
        if self._batcher.failures_in_a_row >= FAILURES_UNTIL_UNREADY:
            return f"the last {self._batcher.failures_in_a_row} batches failed"
        if self._is_broken:
            return "the model's output for the probe holds infinite or NaN values"
        window, last = self._ready_window_s, self._batcher.last_success
        if last is None or time.monotonic() - last > window:
            return f"no inference has succeeded within the last {window:g} s"
        return None

    async def detect_all(
        self,
        sources: Sequence[Source],
        options: DetectionOptions,
        deadline: float,
        *,
        keep_rows: bool = False,
    ) -> list[DetectedImage | ServiceError]:
        """Detect in several images at once; a bad image does not affect the others.

        Args:
            sources: The images.
            options: Thresholds, suppression and classes.
            deadline: `time.monotonic()` at which an image that is not done is given up. The caller
                is to cut the work on a single image short by itself.
            keep_rows: Whether results are to hold the network's raw output.

        Returns:
            For each image, in order, what was found, or why it could not be used.
        """
        tasks = [ImageTask(source, options, keep_rows=keep_rows) for source in sources]
        # All at once, before other requests take the room that was kept while these were read.
        permits = [self._admit() for _ in tasks]
        if len(tasks) == 1:
            return [await self._detect(tasks[0], permits[0], deadline)]
        with ExitStack() as held:
            # A task that is cancelled before it begins releases nothing itself.
            for permit in permits:
                if isinstance(permit, Permit):
                    held.enter_context(permit)
            each = zip(tasks, permits, strict=True)
            return await asyncio.gather(*(self._detect_in_time(*one, deadline) for one in each))

    async def detect_drawn(
        self, source: ImageSource, options: DetectionOptions, deadline: float, kind: PictureType
    ) -> tuple[DetectedImage, bytes]:
        """Detect in an image, and draw its boxes onto it.

        Returns:
            What was found, and the bytes of a picture file.

        Raises:
            ServiceError: The image cannot be used, there is no room, or the model failed.
        """
        permit = self._admit()
        with DrawingSlot(self._drawing) as slot:
            task = ImageTask(source, options, keep_pixels=True)
            found = await self._detect(task, permit, deadline, slot.acquire)
            if isinstance(found, ServiceError):
                raise found
            if found.photo is None:
                raise ValueError("the pixels were not kept")
            names = self.contract.class_names
            work = partial(_draw, found.photo, found.detections, names, kind)
            return found, await slot.draw(work)

    def _admit(self) -> Permit | ServiceError:
        """A permit for one image, or why it gets none."""
        try:
            return self._admission.admit_image()
        except ServiceError as error:
            return error

    async def _detect_in_time(
        self, task: ImageTask, permit: Permit | ServiceError, deadline: float
    ) -> DetectedImage | ServiceError:
        """The same as `_detect`, but an image that is late does not hold up the others' answer."""
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._detect(task, permit, deadline)
        except TimeoutError:
            return DeadlineError("the deadline passed before this image was done")

    async def _detect(
        self,
        task: ImageTask,
        permit: Permit | ServiceError,
        deadline: float,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> DetectedImage | ServiceError:
        """The detections, or the reason why the image could not be used.

        Args:
            task: The image, and what to look for.
            permit: Its permit, which is released here, or why it has none.
            deadline: `time.monotonic()` after which the image is dropped.
            before: Awaited before anything is done to the image.
        """
        if isinstance(permit, ServiceError):
            self._metrics.images.labels(permit.slug).inc()
            return permit
        result: DetectedImage | ServiceError
        try:
            if before is not None:
                await before()
            result = await self._pipeline.detect(permit, task, deadline)
            self._count(result.detections, result.seconds)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = DeadlineError.slug if is_past(deadline) else ClientLeftError.slug
            raise
        except ServiceError as error:
            if isinstance(error, ModelFailedError):
                self._suspicion.set()
            outcome, result = error.slug, error
        except Exception:
            # A bug of ours or of a decoder, which concerns no other image of the request.
            log.exception("image failed")
            outcome, result = ServiceError.slug, ServiceError("an unexpected error")
        finally:
            permit.release()
            self._metrics.images.labels(outcome).inc()
        return result

    def _count(self, detections: Detections, seconds: StageSeconds) -> None:
        for stage in ("decode", "queue", "inference", "postprocess"):
            self._metrics.stage_duration.labels(stage).observe(getattr(seconds, stage))
        for class_id, boxes in Counter(detections.class_ids.tolist()).items():
            self._metrics.detections.labels(self.contract.class_names[class_id]).inc(boxes)

    async def _beat(self) -> None:
        """Probe while no request shows that the model works, or one suggests that it does not."""
        period = self._ready_window_s / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self._suspicion.wait()
            is_suspect = self._suspicion.is_set()
            self._suspicion.clear()
            last = self._batcher.last_success
            stale = last is None or time.monotonic() - last > period
            if stale or is_suspect or self._batcher.failures_in_a_row or self._is_broken:
                await self._probe()
                await asyncio.sleep(min(period, PROBE_PAUSE_S))

    async def _probe(self) -> None:
        """Detect in a grey image, from its bytes on, so that hanging decoders are noticed too."""
        deadline = time.monotonic() + self._ready_window_s
        try:
            with self._admission.admit_image() as permit:
                await self._pipeline.detect(permit, self._probe_task, deadline)
            self._is_broken, self.failed_probes = False, 0
        except ServiceError as error:
            self._is_broken = isinstance(error, NotFiniteError)
            # A full queue says nothing while images succeed; where none does, no probe got through.
            self.failed_probes += not self.draining
            log.warning("probe failed", detail=error.detail)
        except Exception:
            self.failed_probes += 1
            log.exception("probe failed")


def _draw(photo: Photo, detections: Detections, names: tuple[str, ...], kind: PictureType) -> bytes:
    """Draw on a photo, whose memory is held until then."""
    return draw_detections(photo.pixels, detections, names, kind)


def _grey_image(contract: ModelContract) -> ImageTask:
    """An image of the network's size, without any objects."""
    spec = contract.input
    grey = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    return ImageTask(ImageSource(cv2.imencode(".bmp", grey)[1].tobytes()), DetectionOptions())
