"""The pipeline of GPUs: threads decode, the engine runs batches, and threads find the boxes."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from service.engine.base import ChoosingEngine, ImageRows
from service.pipeline.jobs import Job
from service.pipeline.stages import (
    DetectedImage,
    ImageTask,
    PreparedImage,
    StageSeconds,
)
from service.queue.admission import Permit
from service.queue.batcher import Batcher
from service.queue.runner import QueuedModel
from service.queue.threads import ThreadPool

T = TypeVar("T")


class BatchedPipeline:
    """Hands each image from a decoding thread to a batch, and from there to another thread.

    Best in front of a GPU, or of an engine with many threads.

    Args:
        batcher: Runs prepared images by a `NetworkRunner`.
        threads: Threads that decode, and threads that find the boxes.
    """

    def __init__(self, batcher: Batcher[Job[PreparedImage], ImageRows], threads: int) -> None:
        self._batcher = batcher
        # Separate pools, so that an image that is nearly done never waits behind new ones.
        self._decoding = ThreadPool(threads, "decode")
        self._postprocessing = ThreadPool(threads, "postprocess")

    def start(self) -> None:
        """Start both pools."""
        self._decoding.start()
        self._postprocessing.start()

    async def detect(self, permit: Permit, job: Job[ImageTask], deadline: float) -> DetectedImage:
        """Decode the image, wait for a batch and its rows, and find the boxes in them."""
        seconds, task, stages = StageSeconds(), job.work, job.model.stages
        prepare = partial(stages.prepare, task)
        prepared, seconds.decode_at, seconds.decode = await _timed(self._decoding, prepare)
        outcome = await self._batcher.run(permit, Job(job.model, prepared), deadline)
        seconds.queue, seconds.inference = outcome.queue_s, outcome.run_s
        seconds.queue_at = outcome.started - outcome.queue_s
        seconds.inference_at, seconds.batch = outcome.started, outcome.batch
        find = partial(stages.postprocess, task, prepared, outcome.result, seconds)
        detected, began, seconds.postprocess = await _timed(self._postprocessing, find)
        seconds.postprocess_at = began
        return detected

    def stop(self) -> None:
        """End both pools, without waiting for a thread that takes long over a damaged image."""
        self._decoding.stop()
        self._postprocessing.stop()


class NetworkRunner:
    """Runs prepared images of one model and one shape together."""

    def model_of(self, item: Job[PreparedImage]) -> QueuedModel:
        """The model that the image was prepared for."""
        return item.model.queued

    def fit_together(self, first: Job[PreparedImage], second: Job[PreparedImage]) -> bool:
        """Whether two network inputs have the same shape, and are for the same model."""
        return first.model is second.model and first.work.tensor.shape == second.work.tensor.shape

    def run(self, items: Sequence[Job[PreparedImage]], width: int) -> list[ImageRows]:
        """The rows of each image.

        Raises:
            Exception: The engine's.
        """
        tensors = [item.work.tensor for item in items]
        engine = items[0].model.engine
        chooses = not any(item.work.needs_all_rows for item in items)
        if chooses and isinstance(engine, ChoosingEngine):
            return engine.infer_candidates(tensors, [item.work.threshold for item in items])
        return [ImageRows(raw) for raw in engine.infer(tensors, items[0].model.span(width))]


async def _timed(pool: ThreadPool, work: Callable[[], T]) -> tuple[T, float, float]:
    """The result of some work on a thread, when it began, and its seconds, waiting included."""
    began = time.monotonic()
    result = await pool.submit(work)
    return result, began, time.monotonic() - began
