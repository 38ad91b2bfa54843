"""One model as the protocols use it: detections, annotated pictures, and whether all is well."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

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
from service.imaging.draw import DrawingSlot, PictureType, draw_detections
from service.imaging.memory import MemoryShortError
from service.imaging.read import Photo
from service.observe.model_metrics import ModelMetrics
from service.observe.tracing.trace import CURRENT, Attributes, Trace, exemplar
from service.pipeline.base import Watcher
from service.pipeline.jobs import Job, RunnableModel
from service.pipeline.shared import SharedPipeline
from service.pipeline.stages import (
    DetectedImage,
    ImageSource,
    ImageTask,
    Source,
    StageSeconds,
)
from service.queue.batcher import is_past
from service.queue.capacity import Permit

FAILURES_UNTIL_UNREADY: Final = 3

log = structlog.get_logger(__name__)


class Detector:
    """Sends images for one model through the pipeline, and counts them.

    Args:
        model: The model.
        pipeline: The pipeline of all models.
        metrics: Where to count.
        watcher: Looks at each image that succeeded, if anybody does.

    Attributes:
        contract: The model's contract.
        watcher: The same.
        on_found: Called with each image that succeeded; None where nobody listens.
    """

    def __init__(
        self,
        model: RunnableModel,
        pipeline: SharedPipeline,
        metrics: ModelMetrics,
        watcher: Watcher | None = None,
    ) -> None:
        self.contract: ModelContract = model.stages.contract
        self.on_found: Callable[[ImageTask, DetectedImage], None] | None = None
        self.model = model
        self.watcher = watcher
        self._pipeline = pipeline
        self._metrics = metrics
        self._grey_file = _grey_image(self.contract)
        self._is_broken = False

    @property
    def last_success(self) -> float | None:
        """`time.monotonic()` when a batch last succeeded, or None."""
        return self.model.queued.last_success

    @property
    def is_failing(self) -> bool:
        """Whether the last batch or the last probe failed."""
        return self._is_broken or self.model.queued.failures_in_a_row > 0

    def broken_reason(self) -> str | None:
        """Why the model should get no new work, or None."""
        failed = self.model.queued.failures_in_a_row
        if failed >= FAILURES_UNTIL_UNREADY:
            return f"the last {failed} batches failed"
        if self._is_broken:
            return "the model's output for the probe holds infinite or NaN values"
        return None

    async def detect_all(
        self,
        sources: Sequence[Source],
        options: DetectionOptions,
        deadline: float,
        *,
        keep_rows: bool = False,
        is_watched: bool = True,
    ) -> list[DetectedImage | ServiceError]:
        """Detect in several images at once; a bad image does not affect the others.

        Args:
            sources: The images.
            options: Thresholds, suppression and classes.
            deadline: `time.monotonic()` at which an image that is not done is given up. The caller
                is to cut the work on a single image short by itself.
            keep_rows: Whether results are to hold the network's raw output.
            is_watched: Whether the images are a client's, which others may look at as well.

        Returns:
            For each image, in order, what was found, or why it could not be used.
        """
        tasks = [
            ImageTask(source, options, keep_rows=keep_rows, is_watched=is_watched)
            for source in sources
        ]
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
        with DrawingSlot(self._pipeline.drawing) as slot:
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
            return self._pipeline.admit_image()
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
            return DeadlineError.of_image()

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
            self._metrics.images[permit.slug].inc()
            return permit
        result: DetectedImage | ServiceError
        try:
            if before is not None:
                await before()
            result = await self._run(permit, task, deadline)
            trace = CURRENT.get()
            self._count(result.detections, result.seconds, None if trace is None else exemplar())
            if trace is not None:
                self._add_to(trace, result)
            if task.is_watched:
                self._show(task, result)
            outcome = "ok"
        except asyncio.CancelledError:
            outcome = DeadlineError.slug if is_past(deadline) else ClientLeftError.slug
            raise
        except ServiceError as error:
            if isinstance(error, ModelFailedError):
                self._pipeline.suspicion.set()
            outcome, result = error.slug, error
        except Exception:
            # A bug of ours or of a decoder, which concerns no other image of the request.
            log.exception("image failed")
            outcome, result = ServiceError.slug, ServiceError("an unexpected error")
        finally:
            if permit.is_held:
                permit.release()
            self._metrics.images[outcome].inc()
        return result

    async def _run(self, permit: Permit, task: ImageTask, deadline: float) -> DetectedImage:
        """Take one image through the pipeline.

        An image for which there is no memory waits for it here, where it keeps no thread from the
        others, and holds that memory before a thread decodes it.

        Raises:
            ServiceError: The image cannot be used, the deadline passed, or the model failed.
        """
        job = Job(self.model, task, trace=CURRENT.get())
        try:
            return await self._pipeline.run.detect(permit, job, deadline)
        except MemoryShortError as short:
            memory, count = short.memory, short.count
            # The error and the frames in its traceback refer to each other, and these to what is
            # held below: it would stay held until the garbage collector comes by.
            short.__traceback__ = None
        permit.hold()
        held = await self._pipeline.wait_for_memory(memory, count, deadline)
        job = replace(job, work=replace(task, memory=held), seconds=StageSeconds())
        found = await self._pipeline.run.detect(permit, job, deadline)
        if found.photo is None:
            held.release()
        return found

    def _count(
        self, detections: Detections, seconds: StageSeconds, example: dict[str, str] | None
    ) -> None:
        for stage, histogram in self._metrics.stages.items():
            histogram.observe(getattr(seconds, stage), example)
        for class_id, boxes in Counter(detections.class_ids.tolist()).items():
            self._metrics.detections[self.contract.class_names[class_id]].inc(boxes)

    def _show(self, task: ImageTask, found: DetectedImage) -> None:
        """Have others look at an image that succeeded."""
        if self.on_found is not None:
            self.on_found(task, found)
        if self.watcher is not None:
            self.watcher.offer(task, found)

    def _add_to(self, trace: Trace, found: DetectedImage) -> None:
        """Note an image's stages in the trace of its request."""
        facts: Attributes = {
            "yolox.model": self._metrics.label,
            "yolox.image.width": found.width,
            "yolox.image.height": found.height,
            "yolox.detections": len(found.detections.scores),
        }
        trace.add_image(found.seconds.stretches(), facts, found.seconds.batch)

    async def probe(self, deadline: float) -> bool:
        """Detect in a grey image, from its bytes on, so that hanging decoders are noticed too.

        Args:
            deadline: `time.monotonic()` after which the image is dropped.

        Returns:
            Whether that succeeded; the log says why it did not.
        """
        task = ImageTask(self._grey_file, DetectionOptions())
        try:
            with self._pipeline.admit_image() as permit:
                await self._run(permit, task, deadline)
        except ServiceError as error:
            self._is_broken = isinstance(error, NotFiniteError)
            log.warning("probe failed", detail=error.detail)
            return False
        except Exception:
            log.exception("probe failed")
            return False
        self._is_broken = False
        return True


def _draw(photo: Photo, detections: Detections, names: tuple[str, ...], kind: PictureType) -> bytes:
    """Draw on a photo, whose memory is held until then."""
    return draw_detections(photo.pixels, detections, names, kind)


def _grey_image(contract: ModelContract) -> ImageSource:
    """An image of the network's size, without any objects."""
    spec = contract.input
    grey = np.full((spec.height, spec.width, 3), spec.pad_value, np.uint8)
    return ImageSource(cv2.imencode(".bmp", grey)[1].tobytes())
