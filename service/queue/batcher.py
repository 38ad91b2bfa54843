"""A bounded queue of images, and the loop that runs them alone or in batches."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic, TypeVar

import structlog

from service.errors import DeadlineError, ModelFailedError
from service.observe.metrics import Metrics
from service.observe.tracing.trace import CURRENT, Trace, Tracing
from service.queue.admission import Admission, Permit
from service.queue.runner import BatchRunner, Outcome, QueuedModel
from service.queue.slots import OWN_SLOT, EngineSlots, SlotLease
from service.queue.threads import ThreadPool

Item = TypeVar("Item")
Result = TypeVar("Result")

# Timers may fire a moment early.
TIMER_SLACK_S: Final = 0.01

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    """An item in the queue or in a batch; its future is done when nobody waits for it any more."""

    permit: Permit
    item: Item
    model: QueuedModel
    deadline: float
    submitted: float
    had_to_wait: bool
    future: asyncio.Future[Outcome[Result]]
    trace: Trace | None


@dataclass(frozen=True, slots=True)
class _Report(Generic[Item, Result]):
    """A thread's report: the entries that it ran, their results, and when it started and ended."""

    ran: list[_Entry[Item, Result]]
    results: Sequence[Result | Exception]
    started: float
    ended: float


class Batcher(Generic[Item, Result]):
    """Forms a batch whenever a slot is free, from the images that wait at that moment.

    All state lives on the event loop; only the runner is called on threads, one for each slot.

    Args:
        runner: Runs the batches.
        metrics: Where to count.
        slots: Where batches run; each needs at least one slot.
        admission: Gives the permits that submitted images hold.
        prefetch: Batches that are handed to the threads while all slots are busy, so that a
            thread goes on without waiting for the event loop. That pays where a batch is as short
            as a turn of a busy loop. A prefetched batch no longer grows. In all else it counts as
            queued until it starts: it holds its permits, and images that nobody waits for any
            more are left out.
        max_batch_delay_s: How long the oldest image may wait for others to share its batch.
        tracing: Where batches are noted, if images have traces.
    """

    def __init__(
        self,
        runner: BatchRunner[Item, Result],
        metrics: Metrics,
        *,
        slots: EngineSlots,
        admission: Admission,
        prefetch: int = 0,
        max_batch_delay_s: float = 0.0,
        tracing: Tracing | None = None,
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._slots = slots
        self._admission = admission
        self._prefetch = prefetch
        self._max_batch_delay_s = max_batch_delay_s
        self._tracing = tracing
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._prefetched: deque[list[_Entry[Item, Result]]] = deque()
        self._running: set[asyncio.Future[_Report[Item, Result]]] = set()
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._threads = ThreadPool(slots.own, "engine")
        # Prefetched batches wait for a slot of this process, so borrowed slots have other threads.
        self._borrowed_threads = ThreadPool(slots.of_others, "engine_borrowed")

    def start(self) -> None:
        """Start the threads, and form batches from now on; needs a running event loop."""
        self._metrics.queue_capacity.set(self._admission.capacity)
        self._metrics.engine_instances.set(self._slots.own)
        self._threads.start()
        self._borrowed_threads.start()
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def stop(self) -> None:
        """Close admission, finish every image that holds a permit, and end the threads."""
        self._admission.close()
        self._changed.set()
        if self._dispatcher is not None:
            await self._admission.drained()
            self._dispatcher.cancel()
        if self._running:
            await asyncio.wait(self._running)
        self._threads.stop()
        self._borrowed_threads.stop()

    async def run(self, permit: Permit, item: Item, deadline: float) -> Outcome[Result]:
        """Queue an item, and wait for its result.

        The deadline is enforced here and nowhere else: an image whose deadline passes is an image
        that nobody waits for any more, like one whose client has left.

        Args:
            permit: The image's; released when its batch starts.
            item: Passed to the runner.
            deadline: `time.monotonic()` until which the result is of use.

        Raises:
            DeadlineError: The deadline passed before the result was there.
            ModelFailedError: The runner could not run the batch.
            Exception: The runner's, in place of this item's result.
        """
        future: asyncio.Future[Outcome[Result]] = asyncio.get_running_loop().create_future()
        now = time.monotonic()
        model = self._runner.model_of(item)
        model.last_used = now
        had_to_wait, trace = self._slots.free < 1, CURRENT.get()
        entry = _Entry(permit, item, model, deadline, now, had_to_wait, future, trace)
        clock = asyncio.timeout(deadline - now)
        try:
            async with clock:
                self._queue.append(entry)
                self._changed.set()
                return await future
        except TimeoutError as error:
            if not clock.expired():
                raise
            self._abandon(entry)
            raise DeadlineError("the deadline passed before the image was done") from error
        except asyncio.CancelledError:
            self._abandon(entry)
            raise

    def _abandon(self, entry: _Entry[Item, Result]) -> None:
        """Take an entry out of the queue; a batch that already has it leaves it out."""
        with contextlib.suppress(ValueError):
            self._queue.remove(entry)
            self._count_dropped(entry)

    def _count_dropped(self, entry: _Entry[Item, Result]) -> None:
        reason = "deadline-passed" if is_past(entry.deadline) else "client-left"
        self._metrics.rejections.labels(f"dropped-{reason}").inc()

    async def _dispatch(self) -> None:
        """Take each batch that is due and run it; `_give_back` follows when it has ended."""
        while True:
            delay = self._delay() if self._queue else None
            if delay is not None and delay <= 0:
                self._start(self._take())
                continue
            # Nothing else runs between the look at the queue and this wait.
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    def _delay(self) -> float | None:
        """Seconds until the oldest image's batch is due; None until a slot is free."""
        if not self._may_start():
            return None
        delay = self._queue[0].submitted + self._max_batch_delay_s - time.monotonic()
        if delay > 0 and (self._admission.closed or self._fills_a_batch()):
            return 0.0
        return delay

    def _fills_a_batch(self) -> bool:
        return len(self._candidates()) >= self._queue[0].model.max_batch

    def _may_start(self) -> bool:
        """Whether a batch may run now, or be prefetched."""
        if self._slots.free or self._slots.available():
            return True
        # A wide batch runs on the CPUs of several slots; nothing else may start on these.
        return not self._slots.wide_leases and len(self._prefetched) < self._prefetch

    def _candidates(self) -> list[_Entry[Item, Result]]:
        """The oldest entry, and those that may share its batch."""
        oldest = self._queue[0]
        if oldest.model.max_batch == 1:
            return [oldest]
        return [each for each in self._queue if self._runner.fit_together(oldest.item, each.item)]

    def _take(self) -> list[_Entry[Item, Result]]:
        """Take a batch out of the queue, and leave as many entries to each other free slot."""
        candidates = self._candidates()
        share = math.ceil(len(candidates) / max(1, self._slots.free))
        batch = candidates[: min(candidates[0].model.max_batch, share)]
        for entry in batch:
            self._queue.remove(entry)
        return batch

    def _start(self, batch: list[_Entry[Item, Result]]) -> None:
        """Hand a batch to a thread: to run in slots of its own, or prefetched if none is free."""
        lease = self._slots.lease(self._sharers(batch))
        if lease is None:
            self._prefetched.append(batch)
            lease = OWN_SLOT
        else:
            for entry in batch:
                entry.permit.release()
        threads = self._threads if lease.own else self._borrowed_threads
        running = threads.submit(partial(self._run_on_thread, batch, lease.width))
        self._running.add(running)
        running.add_done_callback(partial(self._give_back, batch, lease))

    def _sharers(self, batch: Sequence[_Entry[Item, Result]]) -> int:
        """How many are to have the same number of slots: this batch, and each image that waits.

        Images that are still being decoded wait too. An image that had to wait counts twice, for
        its client will be back at once: two clients would otherwise take turns with all the slots.
        """
        waiting = self._admission.held - len(batch)
        return 1 + waiting + any(entry.had_to_wait for entry in batch)

    def _run_on_thread(
        self, batch: Sequence[_Entry[Item, Result]], width: int
    ) -> _Report[Item, Result]:
        """Run the entries that somebody still waits for."""
        started = time.monotonic()
        wanted = [entry for entry in batch if not entry.future.done()]
        try:
            results = self._runner.run([entry.item for entry in wanted], width) if wanted else []
        finally:
            ended = time.monotonic()
            batch[0].model.metrics.engine_busy.inc(width * (ended - started))
        if len(results) != len(wanted):
            raise ValueError(f"the model gave {len(results)} results for {len(wanted)} images")
        return _Report(wanted, results, started, ended)

    def _give_back(
        self,
        batch: Sequence[_Entry[Item, Result]],
        lease: SlotLease,
        ran: asyncio.Future[_Report[Item, Result]],
    ) -> None:
        """Give the results to the waiting clients, and the slots to the next batch."""
        self._running.discard(ran)
        error = ran.exception()
        if error is None:
            self._succeed(batch, ran.result(), lease.width)
        else:
            self._fail(batch, error)
        if lease.own and self._prefetched:
            # The thread has gone on to the oldest prefetched batch, which takes over the slot.
            for entry in self._prefetched.popleft():
                entry.permit.release()
        else:
            self._slots.release(lease)
        if self._queue:
            self._changed.set()

    def _fail(self, batch: Sequence[_Entry[Item, Result]], error: BaseException) -> None:
        batch[0].model.failures_in_a_row += 1
        log.error("batch failed", images=len(batch), exc_info=error)
        for entry in batch:
            if not entry.future.done():
                entry.future.set_exception(
                    ModelFailedError("the model could not run", retry_after_s=1)
                )

    def _succeed(
        self, batch: Sequence[_Entry[Item, Result]], report: _Report[Item, Result], width: int
    ) -> None:
        run_s = report.ended - report.started
        if not all(isinstance(result, Exception) for result in report.results):
            model = batch[0].model
            model.failures_in_a_row, model.last_success = 0, report.ended
            model.metrics.batch_size.observe(len(report.ran))
            self._admission.note_pace(run_s * width / len(report.ran) / self._slots.own)
        link = self._note_batch(report)
        for entry, result in zip(report.ran, report.results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                queue_s = report.started - entry.submitted
                entry.future.set_result(Outcome(result, queue_s, run_s, report.started, link))
        for entry in batch:
            if entry not in report.ran:
                self._count_dropped(entry)

    def _note_batch(self, report: _Report[Item, Result]) -> object:
        """Note a batch of several images in their traces; gives what links them to it."""
        traces = [entry.trace for entry in report.ran]
        if self._tracing is None or len(traces) < 2:
            return None
        label = report.ran[0].model.metrics.label
        return self._tracing.add_batch(traces, report.started, report.ended, label)


def is_past(deadline: float) -> bool:
    """Whether a wait that was cut short has ended by this deadline, in `time.monotonic()`."""
    return time.monotonic() > deadline - TIMER_SLACK_S
