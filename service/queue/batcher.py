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
from service.queue.capacity import OWN_SLOT, Admission, EngineSlots, Permit, SlotLease
from service.queue.runner import BatchRunner, QueuedModel, QueueItem
from service.queue.threads import ThreadPool

Item = TypeVar("Item", bound=QueueItem)
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
    future: asyncio.Future[Result]


@dataclass(frozen=True, slots=True)
class _Report(Generic[Item, Result]):
    """A thread's report: the entries that it ran, what became of them, and how long it took."""

    ran: list[_Entry[Item, Result]]
    outcome: Sequence[Result | Exception] | BaseException
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
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._slots = slots
        self._admission = admission
        self._prefetch = prefetch
        self._max_batch_delay_s = max_batch_delay_s
        self._queue: deque[_Entry[Item, Result]] = deque()
        self._prefetched: deque[list[_Entry[Item, Result]]] = deque()
        self._running = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        # The next look at the queue: at the end of this turn of the loop, or when a delay is over.
        self._look: asyncio.Handle | None = None
        self._ended = asyncio.Event()
        self._threads = ThreadPool(slots.own, "engine")
        # Prefetched batches wait for a slot of this process, so borrowed slots have other threads.
        self._borrowed_threads = ThreadPool(slots.of_others, "engine_borrowed")

    def start(self) -> None:
        """Start the threads, and form batches from now on; needs a running event loop."""
        self._metrics.queue_capacity.set(self._admission.capacity)
        self._metrics.engine_instances.set(self._slots.own)
        self._threads.start()
        self._borrowed_threads.start()
        self._loop = asyncio.get_running_loop()
        self._look_soon()

    async def stop(self) -> None:
        """Close admission, finish every image that holds a permit, and end the threads."""
        self._admission.close()
        if self._loop is not None:
            self._look_soon()
            await self._admission.drained()
            while self._running:
                self._ended.clear()
                await self._ended.wait()
            self._loop = None
        self._threads.stop()
        self._borrowed_threads.stop()

    async def run(self, permit: Permit, item: Item, deadline: float) -> Result:
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
        loop, model, now = asyncio.get_running_loop(), item.model.queued, time.monotonic()
        future: asyncio.Future[Result] = loop.create_future()
        entry = _Entry(permit, item, model, deadline, now, self._slots.free < 1, future)
        model.last_used = now
        self._queue.append(entry)
        if now >= deadline:
            self._expire(entry)
        clock = loop.call_later(deadline - now, self._expire, entry)
        try:
            self._look_soon()
            return await future
        except asyncio.CancelledError:
            self._abandon(entry)
            raise
        finally:
            clock.cancel()

    def _expire(self, entry: _Entry[Item, Result]) -> None:
        """Tell the waiter of an entry that its deadline has passed."""
        if not entry.future.done():
            entry.future.set_exception(DeadlineError.of_image())
            self._abandon(entry)

    def _abandon(self, entry: _Entry[Item, Result]) -> None:
        """Take an entry out of the queue; a batch that already has it leaves it out."""
        with contextlib.suppress(ValueError):
            self._queue.remove(entry)
            self._count_dropped(entry)

    def _count_dropped(self, entry: _Entry[Item, Result]) -> None:
        reason = "deadline-passed" if is_past(entry.deadline) else "client-left"
        self._metrics.rejections.labels(f"dropped-{reason}").inc()

    def _look_soon(self) -> None:
        """Look at the queue once all that can run in this turn of the event loop has run."""
        if isinstance(self._look, asyncio.TimerHandle):
            self._look.cancel()
            self._look = None
        if self._look is None and self._loop is not None:
            self._look = self._loop.call_soon(self._dispatch, self._loop)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start every batch that is due; `_give_back` follows when one has ended."""
        self._look = None
        while self._queue and (delay := self._delay()) is not None:
            if delay > 0:
                self._look = loop.call_later(delay, self._dispatch, loop)
                return
            self._start(self._take(), loop)

    def _delay(self) -> float | None:
        """Seconds until the oldest image's batch is due; None until a slot is free."""
        if not self._may_start():
            return None
        delay = self._queue[0].submitted + self._max_batch_delay_s - time.monotonic()
        if delay <= 0 or self._admission.closed:
            return 0.0
        return 0.0 if len(self._candidates()) >= self._queue[0].model.max_batch else delay

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

    def _start(self, batch: list[_Entry[Item, Result]], loop: asyncio.AbstractEventLoop) -> None:
        """Hand a batch to a thread: to run in slots of its own, or prefetched if none is free."""
        lease = self._slots.lease(self._sharers(batch))
        if lease is None:
            self._prefetched.append(batch)
            lease = OWN_SLOT
        else:
            for entry in batch:
                entry.permit.release()
        threads = self._threads if lease.own else self._borrowed_threads
        self._running += 1
        threads.post(partial(self._run_on_thread, batch, lease, loop))

    def _sharers(self, batch: Sequence[_Entry[Item, Result]]) -> int:
        """How many are to have the same number of slots: this batch, and each image that waits.

        Images that are still being decoded wait too. An image that had to wait counts twice, for
        its client will be back at once: two clients would otherwise take turns with all the slots.
        """
        waiting = self._admission.held - len(batch)
        return 1 + waiting + any(entry.had_to_wait for entry in batch)

    def _run_on_thread(
        self,
        batch: Sequence[_Entry[Item, Result]],
        lease: SlotLease,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Run the entries that somebody still waits for, and report what became of them."""
        started = time.monotonic()
        wanted = [entry for entry in batch if not entry.future.done()]
        outcome = self._outcome(wanted, started, lease.width) if wanted else []
        ended = time.monotonic()
        batch[0].model.metrics.engine_busy.inc(lease.width * (ended - started))
        report = _Report(wanted, outcome, started, ended)
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits
            loop.call_soon_threadsafe(self._give_back, batch, lease, report)

    def _outcome(
        self, wanted: Sequence[_Entry[Item, Result]], started: float, width: int
    ) -> Sequence[Result | Exception] | BaseException:
        """A result for each entry, or why the whole batch has failed."""
        items = [entry.item for entry in wanted]
        try:
            results = self._runner.run(items, [started - e.submitted for e in wanted], width)
        except BaseException as error:  # noqa: BLE001 - the waiters get it, whatever it is
            return error
        if len(results) == len(wanted):
            return results
        return ValueError(f"the model gave {len(results)} results for {len(wanted)} images")

    def _give_back(
        self,
        batch: Sequence[_Entry[Item, Result]],
        lease: SlotLease,
        report: _Report[Item, Result],
    ) -> None:
        """Give the results to the waiting clients, and the slots to the next batch."""
        self._running -= 1
        self._ended.set()
        if isinstance(report.outcome, BaseException):
            self._fail(batch, report.outcome)
        else:
            self._succeed(batch, report, report.outcome, lease.width)
        if lease.own and self._prefetched:
            # The thread has gone on to the oldest prefetched batch, which takes over the slot.
            for entry in self._prefetched.popleft():
                entry.permit.release()
        else:
            self._slots.release(lease)
        if self._queue:
            self._look_soon()

    def _fail(self, batch: Sequence[_Entry[Item, Result]], error: BaseException) -> None:
        batch[0].model.failures_in_a_row += 1
        log.error("batch failed", images=len(batch), exc_info=error)
        for entry in batch:
            if not entry.future.done():
                entry.future.set_exception(
                    ModelFailedError("the model could not run", retry_after_s=1)
                )

    def _succeed(
        self,
        batch: Sequence[_Entry[Item, Result]],
        report: _Report[Item, Result],
        results: Sequence[Result | Exception],
        width: int,
    ) -> None:
        if not all(isinstance(result, Exception) for result in results):
            model = batch[0].model
            model.failures_in_a_row, model.last_success = 0, report.ended
            model.metrics.batch_size.observe(len(results))
            run_s = report.ended - report.started
            self._admission.note_pace(run_s * width / len(results) / self._slots.own)
        for entry, result in zip(report.ran, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(result)
        for entry in batch:
            if entry not in report.ran:
                self._count_dropped(entry)


def is_past(deadline: float) -> bool:
    """Whether a wait that was cut short has ended by this deadline, in `time.monotonic()`."""
    return time.monotonic() > deadline - TIMER_SLACK_S
