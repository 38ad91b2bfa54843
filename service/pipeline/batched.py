"""The pipeline of GPUs: threads decode, the engine runs batches, and threads find the boxes."""

import time
from collections.abc import Sequence
from functools import partial

from service.core.decode import raw_threshold
from service.engine.base import ChoosingEngine, ImageRows
from service.observe.tracing.trace import Tracing
from service.pipeline.jobs import Job, RunnableModel
from service.pipeline.stages import DetectedImage, ImageTask, PreparedImage
from service.queue.batcher import Batcher
from service.queue.capacity import Permit
from service.queue.threads import ThreadPool


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
        seconds.decode_at = time.monotonic()
        prepared = await self._decoding.submit(partial(stages.prepare, task))
        seconds.decode = time.monotonic() - seconds.decode_at
        queued = Job(job.model, prepared, seconds, job.trace)
        rows = await self._batcher.run(permit, queued, deadline)
        seconds.postprocess_at = time.monotonic()
        find = partial(stages.postprocess, task, prepared, rows, seconds)
        detected = await self._postprocessing.submit(find)
        seconds.postprocess = time.monotonic() - seconds.postprocess_at
        return detected

    def stop(self) -> None:
        """End both pools, without waiting for a thread that takes long over a damaged image."""
        self._decoding.stop()
        self._postprocessing.stop()


class NetworkRunner:
    """Runs prepared images of one model and one shape together.

    Args:
        tracing: Where batches are noted, if images have traces.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing

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
        ended = time.monotonic()
        link = self._note_batch(items, began, ended)
        for item, waited in zip(items, waited_s, strict=True):
            seconds = item.seconds
            seconds.queue_at, seconds.queue = began - waited, waited
            seconds.inference_at, seconds.inference = began, ended - began
            seconds.batch = link
        return rows

    def _note_batch(
        self, items: Sequence[Job[PreparedImage]], began: float, ended: float
    ) -> object:
        """Note a batch of several images in their traces; gives what links them to it."""
        if self._tracing is None or len(items) < 2:
            return None
        traces, label = [item.trace for item in items], items[0].model.queued.metrics.label
        return self._tracing.add_batch(traces, began, ended, label)


def _rows(model: RunnableModel, images: Sequence[PreparedImage], span: int) -> list[ImageRows]:
    tensors = [image.tensor for image in images]
    engine = model.engine
    if isinstance(engine, ChoosingEngine) and not any(image.needs_all_rows for image in images):
        contract = model.stages.contract
        thresholds = [raw_threshold(contract, image.confidence) for image in images]
        return engine.infer_candidates(tensors, thresholds)
    return [ImageRows(raw) for raw in engine.infer(tensors, span)]
