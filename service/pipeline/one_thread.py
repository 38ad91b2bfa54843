"""The pipeline of CPUs: each image stays on one thread from its bytes to its boxes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.engine.base import Engine, ImageRows
from service.pipeline.stages import DetectedImage, ImageTask, Stages, StageSeconds
from service.queue.admission import Permit
from service.queue.batcher import Batcher

ONE_IMAGE: Final = 1


class OneThreadPipeline:
    """Hands each image to one thread, which takes it through all stages.

    Best where the CPUs run everything: as many images are under way as there are CPUs, their pixels
    stay in the cache, and no thread has to be woken between two stages.

    Args:
        batcher: Runs images by a `OneThreadRunner`.
    """

    def __init__(self, batcher: Batcher[ImageTask, DetectedImage]) -> None:
        self._batcher = batcher

    def start(self) -> None:
        """Do nothing: the threads are the batcher's."""

    async def detect(self, permit: Permit, task: ImageTask, deadline: float) -> DetectedImage:
        """Wait for a thread, and for what it finds."""
        outcome = await self._batcher.run(permit, task, deadline)
        outcome.result.seconds.queue = outcome.queue_s
        return outcome.result

    def stop(self) -> None:
        """Do nothing: the threads are the batcher's."""


@dataclass(frozen=True, slots=True)
class OneThreadRunner:
    """Runs images one after the other through all stages, on the calling thread."""

    engine: Engine
    stages: Stages

    @property
    def max_batch(self) -> int:
        """One: an image gains nothing by waiting until others are decoded."""
        return ONE_IMAGE

    def fit_together(self, first: ImageTask, second: ImageTask) -> bool:
        """Whether both are the same; no two images run together."""
        return first is second

    def run(self, items: Sequence[ImageTask], width: int) -> list[DetectedImage | Exception]:
        """The detections in each image, or the error that it met.

        Raises:
            Exception: The engine's.
        """
        return [self._run(task, width) for task in items]

    def _run(self, task: ImageTask, width: int) -> DetectedImage | Exception:
        began = time.monotonic()
        try:
            prepared = self.stages.prepare(task)
        except Exception as error:  # noqa: BLE001 - the image's fault, not the model's
            return error
        decoded = time.monotonic()
        (raw,) = self.engine.infer([prepared.tensor], width)
        inferred = time.monotonic()
        seconds = StageSeconds(decode=decoded - began, inference=inferred - decoded)
        try:
            detected = self.stages.postprocess(task, prepared, ImageRows(raw), seconds)
        except Exception as error:  # noqa: BLE001 - likewise
            return error
        seconds.postprocess = time.monotonic() - inferred
        return detected
