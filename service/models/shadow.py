"""A shadow version: it sees a sample of the images, and its answers are only compared."""

import asyncio
import random
import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import structlog

from service.core.decode import Detections
from service.core.suppress import DetectionOptions, iou_with
from service.models.served import ServedModel
from service.pipeline.shared import SharedPipeline
from service.pipeline.stages import DetectedImage, ImageTask, StageSeconds

# Boxes of the same class that overlap as much show the same object, as in COCO and VOC.
SAME_OBJECT_IOU: Final = 0.5
DEADLINE_S: Final = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the boxes of two versions compare.

    Attributes:
        matched: Boxes of the shadow that show an object of the primary.
        missing: Objects of the primary that the shadow does not show.
        extra: Boxes of the shadow that show none.
    """

    matched: int
    missing: int
    extra: int


class Shadow:
    """Has a version look at images that another has answered, while nothing else waits.

    One image at a time, and only when no image waits for the model: a request is held up by one
    image of the shadow at most, and never where the queue is busy.

    Args:
        primary: The version that answers.
        shadow: The version that is compared.
        share: The part of the images that it is to see.
        pipeline: The pipeline of all models.
    """

    def __init__(
        self,
        primary: ServedModel,
        shadow: ServedModel,
        share: float,
        pipeline: SharedPipeline,
    ) -> None:
        # The primary itself is not kept: it holds this object.
        self._names = primary.class_names
        self._primary_defaults = primary.defaults
        self._watcher = primary.detector.watcher
        self._shadow = shadow
        self._share = share
        self._pipeline = pipeline
        self._counts = shadow.detector.model.queued.metrics
        self._task: asyncio.Task[None] | None = None

    def offer(self, task: ImageTask, found: DetectedImage) -> None:
        """Have the shadow look at an image, if it is in the sample and nothing waits."""
        if random.random() >= self._share:  # noqa: S311 - a sample, no secret
            return
        if self._task is not None or not self._pipeline.is_idle:
            self._count("dropped")
            return
        self._task = asyncio.create_task(self._compare(task, found))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._count("failed")
            log.error("a shadow failed", model=self._shadow.label, exc_info=task.exception())

    async def _compare(self, task: ImageTask, found: DetectedImage) -> None:
        options = self._options(task.options)
        deadline = time.monotonic() + DEADLINE_S
        (seen,) = await self._shadow.detector.detect_all(
            [task.source], options, deadline, is_watched=False
        )
        if not isinstance(seen, DetectedImage):
            self._count("failed")
            return
        agreement = compare(
            found.detections, self._names, seen.detections, self._shadow.class_names
        )
        self._count("compared")
        if self._watcher is not None and (agreement.missing or agreement.extra):
            self._watcher.disagreed(task, found)
        for outcome in ("matched", "missing", "extra"):
            boxes = getattr(agreement, outcome)
            self._counts.shadow_boxes(outcome, boxes)
        for of, seconds in (("primary", found.seconds), ("shadow", seen.seconds)):
            self._counts.shadow_duration(of, _work_s(seconds))

    def _options(self, asked: DetectionOptions) -> DetectionOptions:
        """The shadow's own defaults where the request had none; else the same, by class name."""
        if asked == self._primary_defaults:
            return self._shadow.defaults
        if asked.class_ids is None:
            return asked
        names = {self._names[class_id] for class_id in asked.class_ids}
        own = enumerate(self._shadow.class_names)
        return replace(asked, class_ids=frozenset(i for i, name in own if name in names))

    def _count(self, outcome: str) -> None:
        self._counts.shadow_image(outcome)


def compare(
    primary: Detections,
    primary_names: tuple[str, ...],
    shadow: Detections,
    shadow_names: tuple[str, ...],
) -> Agreement:
    """Match boxes of two versions by class name and overlap, the shadow's best first.

    Args:
        primary: The serving version's, in image pixels.
        primary_names: A name for each of its class ids.
        shadow: The other's, in image pixels.
        shadow_names: Likewise.
    """
    names = np.array([primary_names[i] for i in primary.class_ids], dtype=object)
    free = np.ones(len(names), dtype=np.bool_)
    matched = 0
    for box, class_id in zip(shadow.boxes_xyxy, shadow.class_ids, strict=True):
        if not free.any():
            break
        overlaps = iou_with(box, primary.boxes_xyxy)
        overlaps[~free | (names != shadow_names[class_id])] = 0
        best = int(overlaps.argmax())
        if overlaps[best] >= SAME_OBJECT_IOU:
            free[best] = False
            matched += 1
    return Agreement(matched, len(names) - matched, len(shadow.class_ids) - matched)


def _work_s(seconds: StageSeconds) -> float:
    return seconds.decode + seconds.inference + seconds.postprocess
