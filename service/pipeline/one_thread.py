"""The pipeline of CPUs: each image stays on one thread from its bytes to its boxes."""

import time
from collections.abc import Sequence

from service.engine.base import ImageRows
from service.pipeline.jobs import Job, RunnableModel
from service.pipeline.stages import DetectedImage, ImageTask, StageSeconds
from service.queue.admission import Permit
from service.queue.batcher import Batcher
from service.queue.runner import QueuedModel


class OneThreadPipeline:
    """Hands each image to one thread, which takes it through all stages.

    Best where the CPUs run everything: as many images are under way as there are CPUs, their pixels
    stay in the cache, and no thread has to be woken between two stages.

    Args:
        batcher: Runs images by a `OneThreadRunner`.
    """

    def __init__(self, batcher: Batcher[Job[ImageTask], DetectedImage]) -> None:
        self._batcher = batcher

    def start(self) -> None:
        """Do nothing: the threads are the batcher's."""

    async def detect(self, permit: Permit, job: Job[ImageTask], deadline: float) -> DetectedImage:
        """Wait for a thread, and for what it finds."""
        outcome = await self._batcher.run(permit, job, deadline)
        seconds = outcome.result.seconds
        seconds.queue, seconds.queue_at = outcome.queue_s, outcome.started - outcome.queue_s
        return outcome.result

    def stop(self) -> None:
        """Do nothing: the threads are the batcher's."""


class OneThreadRunner:
    """Runs images one after the other through all stages, on the calling thread."""

    def model_of(self, item: Job[ImageTask]) -> QueuedModel:
        """The model that is to look at the image."""
        return item.model.queued

    def fit_together(self, first: Job[ImageTask], second: Job[ImageTask]) -> bool:
        """Whether both are the same; no two images run together."""
        return first is second

    def run(self, items: Sequence[Job[ImageTask]], width: int) -> list[DetectedImage | Exception]:
        """The detections in each image, or the error that it met.

        Raises:
            Exception: The engine's.
        """
        return [_run(job.model, job.work, width) for job in items]


def _run(model: RunnableModel, task: ImageTask, width: int) -> DetectedImage | Exception:
    began = time.monotonic()
    try:
        prepared = model.stages.prepare(task)
    except Exception as error:  # noqa: BLE001 - the image's fault, not the model's
        return error
    decoded = time.monotonic()
    (raw,) = model.engine.infer([prepared.tensor], model.span(width))
    inferred = time.monotonic()
    seconds = StageSeconds(decode=decoded - began, inference=inferred - decoded)
    seconds.decode_at, seconds.inference_at, seconds.postprocess_at = began, decoded, inferred
    try:
        detected = model.stages.postprocess(task, prepared, ImageRows(raw), seconds)
    except Exception as error:  # noqa: BLE001 - likewise
        return error
    seconds.postprocess = time.monotonic() - inferred
    return detected
