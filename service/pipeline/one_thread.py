"""The pipeline of CPUs: each image stays on one thread from its bytes to its boxes."""

import time
from collections.abc import Sequence

from service.engine.base import ImageRows
from service.pipeline.jobs import Job
from service.pipeline.stages import DetectedImage, ImageTask
from service.queue.batcher import Batcher


class OneThreadPipeline:
    """Hands each image to one thread, which takes it through all stages.

    Best where the CPUs run everything: as many images are under way as there are CPUs, their pixels
    stay in the cache, and no thread has to be woken between two stages.

    Args:
        batcher: Runs images by a `OneThreadRunner`.
    """

    def __init__(self, batcher: Batcher[Job[ImageTask], DetectedImage]) -> None:
        self.detect = batcher.run

    def start(self) -> None:
        """Do nothing: the threads are the batcher's."""

    def stop(self) -> None:
        """Do nothing: the threads are the batcher's."""


class OneThreadRunner:
    """Runs images one after the other through all stages, on the calling thread."""

    def fit_together(self, first: Job[ImageTask], second: Job[ImageTask]) -> bool:
        """Whether both are the same; no two images run together."""
        return first is second

    def run(
        self, items: Sequence[Job[ImageTask]], waited_s: Sequence[float], width: int
    ) -> list[DetectedImage | Exception]:
        """The detections in each image, or the error that it met.

        Raises:
            Exception: The engine's.
        """
        return [_run(job, waited, width) for job, waited in zip(items, waited_s, strict=True)]


def _run(job: Job[ImageTask], waited_s: float, width: int) -> DetectedImage | Exception:
    began = time.monotonic()
    model, task, seconds = job.model, job.work, job.seconds
    seconds.queue, seconds.queue_at = waited_s, began - waited_s
    try:
        prepared = model.stages.prepare(task)
    except Exception as error:  # noqa: BLE001 - the image's fault, not the model's
        return error
    decoded = time.monotonic()
    (raw,) = model.engine.infer([prepared.tensor], width if width in model.spans else 1)
    inferred = time.monotonic()
    seconds.decode, seconds.inference = decoded - began, inferred - decoded
    seconds.decode_at, seconds.inference_at, seconds.postprocess_at = began, decoded, inferred
    try:
        detected = model.stages.postprocess(task, prepared, ImageRows(raw), seconds)
    except Exception as error:  # noqa: BLE001 - likewise
        return error
    seconds.postprocess = time.monotonic() - inferred
    return detected
