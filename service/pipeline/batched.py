"""The pipeline of GPUs: threads decode, the engine runs batches, and threads find the boxes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from service.engine.base import ChoosingEngine, Engine, ImageRows
from service.pipeline.stages import (
    DetectedImage,
    ImageTask,
    PreparedImage,
    Stages,
    StageSeconds,
)
from service.queue.admission import Permit
from service.queue.batcher import Batcher
from service.queue.threads import ThreadPool

T = TypeVar("T")


class BatchedPipeline:
    """Hands each image from a decoding thread to a batch, and from there to another thread.

    Best in front of a GPU, or of an engine with many threads.

    Args:
        batcher: Runs prepared images by a `NetworkRunner`.
        stages: The stages beside the model.
        threads: Threads that decode, and threads that find the boxes.
    """

    def __init__(
        self, batcher: Batcher[PreparedImage, ImageRows], stages: Stages, threads: int
    ) -> None:
        self._batcher = batcher
        self._stages = stages
        # Separate pools, so that an image that is nearly done never waits behind new ones.
        self._decoding = ThreadPool(threads, "decode")
        self._postprocessing = ThreadPool(threads, "postprocess")

    def start(self) -> None:
        """Start both pools."""
        self._decoding.start()
        self._postprocessing.start()

    async def detect(self, permit: Permit, task: ImageTask, deadline: float) -> DetectedImage:
        """Decode the image, wait for a batch and its rows, and find the boxes in them."""
        seconds, prepare = StageSeconds(), partial(self._stages.prepare, task)
        prepared, seconds.decode = await _timed(self._decoding, prepare)
        outcome = await self._batcher.run(permit, prepared, deadline)
        seconds.queue, seconds.inference = outcome.queue_s, outcome.run_s
        find = partial(self._stages.postprocess, task, prepared, outcome.result, seconds)
        detected, seconds.postprocess = await _timed(self._postprocessing, find)
        return detected

    def stop(self) -> None:
        """End both pools, without waiting for a thread that takes long over a damaged image."""
        self._decoding.stop()
        self._postprocessing.stop()


@dataclass(frozen=True, slots=True)
class NetworkRunner:
    """Runs prepared images of one shape together."""

    engine: Engine

    @property
    def max_batch(self) -> int:
        """The engine's."""
        return self.engine.max_batch

    def fit_together(self, first: PreparedImage, second: PreparedImage) -> bool:
        """Whether two network inputs have the same shape."""
        return first.tensor.shape == second.tensor.shape

    def run(self, items: Sequence[PreparedImage], width: int) -> list[ImageRows]:
        """The rows of each image.

        Raises:
            Exception: The engine's.
        """
        tensors = [item.tensor for item in items]
        chooses = not any(item.needs_all_rows for item in items)
        if chooses and isinstance(self.engine, ChoosingEngine):
            return self.engine.infer_candidates(tensors, [item.threshold for item in items])
        return [ImageRows(raw) for raw in self.engine.infer(tensors, width)]


async def _timed(pool: ThreadPool, work: Callable[[], T]) -> tuple[T, float]:
    """The result of some work on a thread, and the seconds that it took, waiting included."""
    began = time.monotonic()
    result = await pool.submit(work)
    return result, time.monotonic() - began
