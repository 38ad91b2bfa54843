"""The two ways of an image through the server: on one thread, or from stage to stage in batches."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.engine.base import Engine
from service.pipeline.stages import DetectedImage, Job, Stages, StageSeconds
from service.queue.admission import Place
from service.queue.batcher import Batcher
from service.queue.threads import Threads

Pixels = NDArray[np.uint8]
RawRows = NDArray[np.floating]
T = TypeVar("T")

ONE_IMAGE: Final = 1


class Path(Protocol):
    """A way from the bytes of an image to its boxes."""

    async def detect(self, place: Place, job: Job, deadline: float) -> DetectedImage:
        """Take an image, whose place in the queue is reserved, through all stages.

        Raises:
            ServiceError: The image cannot be used, the deadline passed in the queue, or the model
                failed.
        """

    def stop(self) -> None:
        """End the threads; the batcher has stopped."""


class OneThread:
    """Each image stays on one thread from its bytes to its boxes.

    Best where the CPUs run everything: as many images are under way as there are CPUs, their pixels
    stay in the cache, and no thread has to be woken between two stages.
    """

    def __init__(self, batcher: "Batcher[Job, DetectedImage]") -> None:
        self._batcher = batcher

    async def detect(self, place: Place, job: Job, deadline: float) -> DetectedImage:
        """Wait for a thread, and for what it finds."""
        outcome = await self._batcher.run(place, job, deadline)
        image = outcome.result
        return replace(image, seconds=replace(image.seconds, queue=outcome.queue_s))

    def stop(self) -> None:
        """Nothing: the threads are the batcher's."""


@dataclass(frozen=True, slots=True)
class OneThreadRunner:
    """Runs one image after the other, all stages of it."""

    engine: Engine
    stages: Stages

    @property
    def max_batch(self) -> int:
        """One: an image that waited for others to be decoded would gain nothing."""
        return ONE_IMAGE

    @property
    def spans(self) -> Sequence[int]:
        """The engine's."""
        return self.engine.spans

    def alike(self, first: Job, second: Job) -> bool:
        """None are run together."""
        return first is second

    def run(self, items: Sequence[Job], span: int) -> list[DetectedImage | Exception]:
        """What was found in each image, or what is wrong with it."""
        return [self._run(job, span) for job in items]

    def _run(self, job: Job, span: int) -> DetectedImage | Exception:
        began = time.monotonic()
        try:
            prepared = self.stages.prepare(job)
        except Exception as error:  # noqa: BLE001 - the image's own, and no failure of the model
            return error
        decoded = time.monotonic()
        raw = run_engine(self.engine, [prepared.tensor], span)[0]
        inferred = time.monotonic()
        try:
            detections = self.stages.find(job, prepared, raw)
        except Exception as error:  # noqa: BLE001 - likewise
            return error
        found = time.monotonic()
        seconds = StageSeconds(decoded - began, 0.0, inferred - decoded, found - inferred)
        return prepared.detected(detections, seconds)


class InBatches:
    """Threads decode, the engine runs batches of what is decoded, and threads find the boxes.

    Best in front of a GPU, or of an engine whose threads are many.
    """

    def __init__(self, batcher: "Batcher[Pixels, RawRows]", stages: Stages, threads: int) -> None:
        self._batcher = batcher
        self._stages = stages
        # Apart, so that finished work never waits behind images that are still to be decoded.
        self._decoders = Threads(threads, "decode")
        self._finishers = Threads(threads, "postprocess")

    async def detect(self, place: Place, job: Job, deadline: float) -> DetectedImage:
        """Decode, wait for a batch and its rows, and find the boxes in them."""
        prepared, decode_s = await _timed(self._decoders, lambda: self._stages.prepare(job))
        outcome = await self._batcher.run(place, prepared.tensor, deadline)
        detections, postprocess_s = await _timed(
            self._finishers, lambda: self._stages.find(job, prepared, outcome.result)
        )
        seconds = StageSeconds(decode_s, outcome.queue_s, outcome.seconds, postprocess_s)
        return prepared.detected(detections, seconds)

    def stop(self) -> None:
        """End the threads; one can be at a damaged image for long, and nobody waits for that."""
        self._decoders.stop()
        self._finishers.stop()


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """Runs network inputs of one shape together."""

    engine: Engine

    @property
    def max_batch(self) -> int:
        """The engine's."""
        return self.engine.max_batch

    @property
    def spans(self) -> Sequence[int]:
        """The engine's."""
        return self.engine.spans

    def alike(self, first: Pixels, second: Pixels) -> bool:
        """Whether two inputs are of one shape."""
        return first.shape == second.shape

    def run(self, items: Sequence[Pixels], span: int) -> list[RawRows]:
        """(A, 4 + 1 + C) raw rows of each input, (H, W, 3) uint8."""
        return list(run_engine(self.engine, items, span))


def run_engine(engine: Engine, tensors: Sequence[Pixels], span: int) -> RawRows:
    """Rows of every input.

    Raises:
        ValueError: The engine gave more or fewer.
    """
    raw = engine.infer(tensors, span)
    if len(raw) != len(tensors):
        raise ValueError(f"the engine gave {len(raw)} rows for {len(tensors)} images")
    return raw


async def _timed(threads: Threads, work: Callable[[], T]) -> tuple[T, float]:
    """Have a thread do some work; gives its result and the seconds it took, waiting included."""
    began = time.monotonic()
    result = await threads.start(work)
    return result, time.monotonic() - began
