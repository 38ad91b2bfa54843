"""A bounded queue of images in front of engines that run batches."""

import asyncio
import contextlib
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from service.engine import Engine
from service.errors import DeadlineError, DrainingError, ModelFailedError, QueueFullError
from service.metrics import Metrics

Pixels = NDArray[np.uint8]
RawRows = NDArray[np.floating]

TIMER_SLACK_S: Final = 0.01

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inference:
    """What became of one image.

    Attributes:
        raw: (A, 4 + 1 + C) network output.
        queue_s: Seconds between submission and the start of its batch.
        inference_s: Seconds its batch ran.
    """

    raw: RawRows
    queue_s: float
    inference_s: float


class Place:
    """One image's place in the queue, from its acceptance until its batch starts.

    It is taken before the image is decoded, so that a crowd is refused before it costs anything.
    Leaving the context gives the place back if it is still held.
    """

    def __init__(self, batcher: "Batcher") -> None:
        self._batcher: Batcher | None = batcher

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Free the place; a second time does nothing."""
        if self._batcher is not None:
            self._batcher.place_freed()
            self._batcher = None


@dataclass(slots=True, eq=False)
class _Entry:
    place: Place
    tensor: Pixels
    deadline: float
    submitted: float
    had_to_wait: bool
    future: asyncio.Future[Inference]


class Batcher:
    """Forms a batch whenever an engine is free, from what is waiting at that moment.

    All state lives on the event loop; only the engine runs on threads, one for each instance. An
    image that nobody waits behind gets the CPUs of several instances.

    Args:
        engine: What runs the batches.
        metrics: Where to count.
        instances: Batches run at once.
        max_queue_images: Places in the queue.
        max_batch_delay_s: How long the oldest image may wait for company, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        *,
        instances: int,
        max_queue_images: int,
        max_batch_delay_s: float = 0.0,
    ) -> None:
        self._engine = engine
        self._instances = instances
        self._metrics = metrics
        self._max_queue_images = max_queue_images
        self._max_batch_delay_s = max_batch_delay_s
        self._queue: deque[_Entry] = deque()
        self._places_held = 0
        self._idle_instances = instances
        self._seconds_per_image = 0.0
        self._draining = False
        self._stopping = False
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(instances, thread_name_prefix="engine")
        metrics.queue_capacity.set(max_queue_images)
        metrics.batch_capacity.set(engine.max_batch)
        metrics.engine_instances.set(instances)
        self.failures_in_a_row = 0
        self.last_success: float | None = None

    @property
    def draining(self) -> bool:
        """Whether new work is refused because the server is shutting down."""
        return self._draining

    def start(self) -> None:
        """Begin to form batches; call it on the running event loop."""
        self._dispatcher = asyncio.create_task(self._dispatch())

    def refuse_new(self) -> None:
        """From now on `check_accepting` lets nobody in; who is in may still reserve places."""
        self._draining = True

    async def stop(self) -> None:
        """Refuse new work, finish all that holds a place, and end the engines' threads."""
        self.refuse_new()
        self._stopping = True
        self._changed.set()
        if self._dispatcher is not None:
            await self._dispatcher
        self._threads.shutdown(wait=False)

    def reserve(self) -> Place:
        """Take a place in the queue for one image, at once or not at all.

        Raises:
            QueueFullError: Every place is taken.
            DrainingError: The batcher has stopped.
        """
        self._check_room(closed=self._stopping)
        self._places_held += 1
        self._metrics.queue_images.set(self._places_held)
        return Place(self)

    def check_accepting(self) -> None:
        """See whether a new request may come in, before anything is done for it.

        Raises:
            QueueFullError: Every place is taken.
            DrainingError: The server is shutting down.
        """
        self._check_room(closed=self._draining)

    def _check_room(self, *, closed: bool) -> None:
        if closed:
            raise DrainingError("the server is shutting down", retry_after_s=1)
        if self._places_held >= self._max_queue_images:
            raise QueueFullError(
                f"all {self._max_queue_images} places in the queue are taken",
                retry_after_s=self._seconds_until_empty(),
            )

    def place_freed(self) -> None:
        """A place was given back; called by the place."""
        self._places_held -= 1
        self._metrics.queue_images.set(self._places_held)
        if self._stopping:
            self._changed.set()

    async def infer(self, place: Place, tensor: Pixels, deadline: float) -> Inference:
        """Wait for a batch and its result.

        Args:
            place: The place that was reserved for this image.
            tensor: (H, W, 3) uint8 network input.
            deadline: `time.monotonic()` after which the image is dropped instead.

        Raises:
            DeadlineError: The deadline passed before its batch was formed.
            ModelFailedError: The engine raised while it ran the batch.
        """
        loop = asyncio.get_running_loop()
        busy = self._idle_instances < 1
        entry = _Entry(place, tensor, deadline, time.monotonic(), busy, loop.create_future())
        self._queue.append(entry)
        self._changed.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._forget(entry)
            raise

    async def _dispatch(self) -> None:
        while batch := await self._next_batch():
            task = asyncio.create_task(self._run(batch, self._claim_span(batch)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        await asyncio.gather(*self._running)

    async def _next_batch(self) -> list[_Entry]:
        """Wait until there is work for an idle instance; nothing means that it is time to end."""
        while True:
            self._drop_expired()
            if self._stopping and not self._queue and not self._places_held:
                return []
            pause = self._pause()
            if pause is not None and pause <= 0:
                return self._take()
            # Nothing else runs between the look at the queue and this wait.
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _pause(self) -> float | None:
        """Seconds until a batch should start; None while nothing waits, or nothing is idle."""
        if not self._queue or self._idle_instances < 1:
            return None
        oldest = self._queue[0]
        alike = sum(_alike(oldest, entry) for entry in self._queue)
        if self._stopping or alike >= self._engine.max_batch:
            return 0.0
        return oldest.submitted + self._max_batch_delay_s - time.monotonic()

    def _take(self) -> list[_Entry]:
        """Take the oldest entry and those of its shape, leaving a share to other idle instances."""
        alike = [entry for entry in self._queue if _alike(self._queue[0], entry)]
        batch = alike[: min(self._engine.max_batch, math.ceil(len(alike) / self._idle_instances))]
        taken = set(map(id, batch))
        self._queue = deque(entry for entry in self._queue if id(entry) not in taken)
        for entry in batch:
            entry.place.give_back()
        return batch

    def _claim_span(self, batch: list[_Entry]) -> int:
        """Take idle instances for the batch just taken, leaving as many to each who waits.

        Whom it waited for will be back: two clients would otherwise take turns with all of them.
        """
        returning = any(entry.had_to_wait for entry in batch)
        fair = self._idle_instances // (1 + self._places_held + returning)
        span = max(span for span in self._engine.spans if span <= max(1, fair))
        self._idle_instances -= span
        return span

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._queue if entry.deadline <= now]:
            self._forget(entry)
            if not entry.future.done():
                entry.future.set_exception(DeadlineError("the deadline passed in the queue"))

    def _forget(self, entry: _Entry) -> None:
        """Drop an entry whose client left or whose deadline passed, if no batch has taken it."""
        with contextlib.suppress(ValueError):
            self._queue.remove(entry)
            reason = "deadline-passed" if is_past(entry.deadline) else "client-left"
            self._metrics.rejections.labels(f"dropped-{reason}").inc()

    async def _run(self, batch: list[_Entry], span: int) -> None:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        try:
            raw = await loop.run_in_executor(
                self._threads, _infer, self._engine, [entry.tensor for entry in batch], span
            )
        except Exception as error:  # noqa: BLE001 - whatever it raises, its waiters must hear
            self._batch_failed(batch, error)
        else:
            self._batch_succeeded(batch, raw, started, span)
        finally:
            self._metrics.engine_busy.inc(span * (time.monotonic() - started))
            self._idle_instances += span
            self._changed.set()

    def _batch_failed(self, batch: list[_Entry], error: Exception) -> None:
        self.failures_in_a_row += 1
        log.error("batch failed", images=len(batch), exc_info=error)
        for entry in batch:
            if not entry.future.done():
                entry.future.set_exception(
                    ModelFailedError("the model could not run", retry_after_s=1)
                )

    def _batch_succeeded(
        self, batch: list[_Entry], raw: RawRows, started: float, span: int
    ) -> None:
        self.failures_in_a_row = 0
        self.last_success = time.monotonic()
        self._metrics.batch_size.observe(len(batch))
        seconds = self.last_success - started
        seconds_each = seconds * span / len(batch) / self._instances
        known = self._seconds_per_image or seconds_each
        self._seconds_per_image = 0.9 * known + 0.1 * seconds_each
        for entry, rows in zip(batch, raw, strict=True):
            if not entry.future.done():
                entry.future.set_result(Inference(rows, started - entry.submitted, seconds))

    def _seconds_until_empty(self) -> int:
        return max(1, math.ceil(self._places_held * self._seconds_per_image))


def is_past(deadline: float) -> bool:
    """Whether a deadline is why a wait was cut short; timers may fire a moment early."""
    return time.monotonic() > deadline - TIMER_SLACK_S


def _alike(first: _Entry, second: _Entry) -> bool:
    return first.tensor.shape == second.tensor.shape


def _infer(engine: Engine, tensors: list[Pixels], span: int) -> RawRows:
    images = tensors[0][np.newaxis] if len(tensors) == 1 else np.stack(tensors)
    raw = engine.infer(images, span)
    if len(raw) != len(tensors):
        raise ValueError(f"the engine gave {len(raw)} rows for {len(tensors)} images")
    return raw
