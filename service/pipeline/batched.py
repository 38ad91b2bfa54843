"""The pipeline of GPUs: threads decode, the engine runs batches, and threads find the boxes."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from service.core.decode import raw_threshold
from service.engine.base import ChoosingEngine, ImageRows
from service.pipeline.jobs import Job, RunnableModel
from service.pipeline.stages import DetectedImage, ImageTask, PreparedImage
from service.queue.batcher import Batcher
from service.queue.capacity import Permit
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
        task, stages, seconds = job.work, job.model.stages, job.seconds
        prepared, seconds.decode = await _timed(self._decoding, partial(stages.prepare, task))
        rows = await self._batcher.run(permit, Job(job.model, prepared, seconds), deadline)
        find = partial(stages.postprocess, task, prepared, rows, seconds)
        detected, seconds.postprocess = await _timed(self._postprocessing, find)
        return detected

    def stop(self) -> None:
        """End both pools, without waiting for a thread that takes long over a damaged image."""
        self._decoding.stop()
        self._postprocessing.stop()


class NetworkRunner:
    """Runs prepared images of one model and one shape together."""

    def fit_together(self, first: Job[PreparedImage], second: Job[PreparedImage]) -> bool:
        """Whether two network inputs have the same shape, and are for the same model."""
        return first.model is second.model and first.work.tensor.shape == second.work.tensor.shape

    def run(
        self, items: Sequence[Job[PreparedImage]], waited_s: Sequence[float], width: int
    ) -> Sequence[ImageRows]:
        """The rows of each image.

        Raises:
            Exception: The engine's.
        """
        began = time.monotonic()
        model = items[0].model
        rows = _rows(model, [item.work for item in items], width if width in model.spans else 1)
        ran_s = time.monotonic() - began
        for item, waited in zip(items, waited_s, strict=True):
            item.seconds.queue, item.seconds.inference = waited, ran_s
        return rows


def _rows(model: RunnableModel, images: Sequence[PreparedImage], span: int) -> list[ImageRows]:
    tensors = [image.tensor for image in images]
    engine = model.engine
    if isinstance(engine, ChoosingEngine) and not any(image.needs_all_rows for image in images):
        contract = model.stages.contract
        thresholds = [raw_threshold(contract, image.confidence) for image in images]
        return engine.infer_candidates(tensors, thresholds)
    return [ImageRows(raw) for raw in engine.infer(tensors, span)]


async def _timed(pool: ThreadPool, work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work on a thread, and the seconds that it took, waiting included."""
    began = time.monotonic()
    result = await pool.submit(work)
    return result, time.monotonic() - began
