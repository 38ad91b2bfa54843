"""Captures images behind the requests that brought them: one at a time, and never in their way."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import structlog

from service.capture.choice import Chooser, Reason
from service.capture.folder import CapturedBox, CaptureFolder, Record
from service.errors import ServiceError
from service.observe.metrics import Metrics
from service.pipeline.stages import DetectedImage, ImageTask, Stages
from service.queue.threads import ThreadPool

if TYPE_CHECKING:
    from prometheus_client import Counter

PIXEL_DIGITS, SCORE_DIGITS = 2, 4

log = structlog.get_logger(__name__)


class Capture:
    """Keeps images that a chooser chooses, while nothing else is being kept.

    Args:
        folder: Where to.
        chooser: Chooses.
        metrics: Where to count.
    """

    def __init__(self, folder: CaptureFolder, chooser: Chooser, metrics: Metrics) -> None:
        self._folder = folder
        self.chooser = chooser
        self._count: Counter = metrics.captured
        self._thread = ThreadPool(1, "capture")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the thread; needs a running event loop."""
        self._thread.start()

    async def stop(self) -> None:
        """Finish the image that is being kept, and write what is known of all."""
        if self._task is not None:
            await asyncio.wait([self._task])
        try:
            await self._thread.submit(self._folder.tidy)
        except OSError as error:
            log.warning("the captured images could not be summed up", cause=str(error))
        self._thread.stop()

    def keep(
        self, reason: Reason, task: ImageTask, found: DetectedImage, model: "ModelCapture"
    ) -> None:
        """Keep an image, unless another is being kept."""
        if self._task is not None:
            self._count.labels("dropped").inc()
            return
        record = Record(
            width=found.width,
            height=found.height,
            model=model.label,
            reason=reason,
            class_names=model.names,
            boxes=_boxes(found, model.names),
        )
        work = partial(self._write, model.stages, task, record)
        self._task = asyncio.create_task(self._keep(reason, work))

    async def _keep(self, reason: Reason, work: "partial[None]") -> None:
        try:
            await self._thread.submit(work)
        except (OSError, ServiceError) as error:
            self._count.labels("failed").inc()
            log.warning("an image could not be captured", cause=str(error))
        else:
            self._count.labels(reason).inc()
        finally:
            self._task = None

    def _write(self, stages: Stages, task: ImageTask, record: Record) -> None:
        if not self._folder.keeps_pictures:
            self._folder.add(None, record)
            return
        photo = stages.upright(task.source)
        try:
            self._folder.add(photo.pixels, record)
        finally:
            if photo.memory is not None:
                photo.memory.release()


class ModelCapture:
    """What is captured of the images of one model.

    Args:
        capture: Keeps them.
        stages: The model's.
        label: Its name and version.

    Attributes:
        stages: The same.
        label: The same.
        names: A name for each of its class ids.
    """

    def __init__(self, capture: Capture, stages: Stages, label: str) -> None:
        self._capture = capture
        self.stages = stages
        self.label = label
        self.names: Sequence[str] = stages.contract.class_names

    def offer(self, task: ImageTask, found: DetectedImage) -> None:
        """Keep an image if the model is unsure of it, or chance has it."""
        confidence = task.options.confidence
        reason = self._capture.chooser.reason(found.detections, self.names, confidence)
        if reason is not None:
            self._capture.keep(reason, task, found, self)

    def disagreed(self, task: ImageTask, found: DetectedImage) -> None:
        """Keep an image in which another version finds something else."""
        reason = self._capture.chooser.disagreement()
        if reason is not None:
            self._capture.keep(reason, task, found, self)


def _boxes(found: DetectedImage, names: Sequence[str]) -> list[CapturedBox]:
    detections = found.detections
    rows = zip(
        detections.boxes_xyxy.tolist(),
        detections.scores.tolist(),
        detections.class_ids.tolist(),
        strict=True,
    )
    boxes = []
    for (left, top, right, bottom), score, class_id in rows:
        corners = left, top, right - left, bottom - top
        x, y, width, height = (round(value, PIXEL_DIGITS) for value in corners)
        boxes.append(
            CapturedBox(names[class_id], round(score, SCORE_DIGITS), (x, y, width, height))
        )
    return boxes
