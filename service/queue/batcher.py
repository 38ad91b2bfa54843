"""A bounded queue of images in front of what runs them, alone or in batches."""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from service.errors import DeadlineError, ModelFailedError
from service.observe.metrics import Metrics
from service.queue.admission import Place, Places
from service.queue.cpu_sharing import Team
from service.queue.slots import Claim, Instances
from service.queue.threads import Threads

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

TIMER_SLACK_S: Final = 0.01

log = structlog.get_logger(__name__)


class Runner(Protocol[Item_contra, Result_co]):
    """What runs batches; several threads may call it at once."""

    @property
    def max_batch(self) -> int:
        """Most items of one call."""

    @property
    def spans(self) -> Sequence[int]:
        """How many instances' shares of the CPU one call can use, ascending from 1."""

    def alike(self, first: Item_contra, second: Item_contra) -> bool:
        """Whether two items may be of one batch."""

    def run(self, items: Sequence[Item_contra], span: int) -> Sequence[Result_co | Exception]:
        """What becomes of each item; an exception is that item's alone.

        Raises:
            Exception: The model could not run.
        """


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What became of one item.

    Attributes:
        result: What the runner made of it.
        queue_s: Seconds between submission and the start of its batch.
        seconds: Seconds its batch ran.
    """

    result: Result
    queue_s: float
    seconds: float


@dataclass(slots=True, eq=False)
class _Entry(Generic[Item, Result]):
    place: Place
    item: Item
    deadline: float
    submitted: float
    had_to_wait: bool
    future: asyncio.Future[Outcome[Result]]

    def is_wanted(self) -> bool:
        """Whether anybody still waits for it. Safe on any thread."""
        return not self.future.done() and time.monotonic() < self.deadline

    def drop(self, metrics: Metrics) -> None:
        """Count that it is not run, and tell whoever waits."""
        reason = "deadline-passed" if is_past(self.deadline) else "client-left"
        metrics.rejections.labels(f"dropped-{reason}").inc()
        if not self.future.done():
            self.future.set_exception(DeadlineError("the deadline passed in the queue"))


class Batcher(Generic[Item, Result]):
    """Forms a batch whenever an instance is free, from what is waiting at that moment.

    All state lives on the event loop; only the runner is called on threads, one for each instance.
    An image that nobody waits behind gets the CPUs of several instances. Of several processes that
    share the CPUs, each has so many instances for itself, and may use those of the others while
    they are idle.

    Args:
        runner: What runs the batches.
        metrics: Where to count.
        instances: Batches run at once, by this process alone.
        places: Of the queue.
        team: The processes whose instances this one may use, if it may; each has as many.
        ahead: Batches handed over while all instances are at work, so that none has to wait until
            the event loop sees that it has ended. Worth it where a batch takes no longer than a
            busy loop's turn; it can no longer grow then. It is as good as in the queue until it
            starts: it holds its places, and what nobody waits for any more is not run.
        max_batch_delay_s: How long the oldest image may wait for company, in seconds.
    """

    def __init__(
        self,
        runner: Runner[Item, Result],
        metrics: Metrics,
        *,
        instances: int,
        places: Places,
        team: Team | None = None,
        ahead: int = 0,
        max_batch_delay_s: float = 0.0,
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._max_batch_delay_s = max_batch_delay_s
        self._queue: deque[_Entry[Item, Result]] = deque()
        # Of which those below zero are batches that were handed over ahead; these hold their places
        # until they start.
        self._instances = Instances(instances, team)
        self._ahead = ahead
        self._handed_over: deque[list[_Entry[Item, Result]]] = deque()
        self._wide_batches = 0
        self._changed = asyncio.Event()
        self._places = places
        places.on_freed = self._changed.set
        self._dispatcher: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._threads = Threads(instances, "engine")
        # Apart, so that what was handed over ahead waits for an instance of this process's own.
        self._threads_for_borrowed = Threads(self._instances.of_others, "engine_borrowed")
        metrics.batch_capacity.set(runner.max_batch)
        metrics.engine_instances.set(instances)
        self.failures_in_a_row = 0
        self.last_success: float | None = None

    def start(self) -> None:
        """Begin to form batches; call it on the running event loop."""
        self._dispatcher = asyncio.create_task(self._dispatch())

    async def stop(self) -> None:
        """Give out no more places, finish all that holds one, and end the threads."""
        self._places.close()
        self._changed.set()
        if self._dispatcher is not None:
            await self._dispatcher
        self._threads.stop()
        self._threads_for_borrowed.stop()

    async def run(self, place: Place, item: Item, deadline: float) -> Outcome[Result]:
        """Wait for a batch and its result.

        Args:
            place: The place that was reserved for this image.
            item: What the runner is to run.
            deadline: `time.monotonic()` after which the item is dropped instead.

        Raises:
            DeadlineError: The deadline passed before its batch was formed.
            ModelFailedError: The runner raised while it ran the batch.
            Exception: What the runner gave in the place of its result.
        """
        loop = asyncio.get_running_loop()
        busy = self._instances.idle < 1
        entry: _Entry[Item, Result] = _Entry(
            place, item, deadline, time.monotonic(), busy, loop.create_future()
        )
        self._queue.append(entry)
        self._changed.set()
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._forget(entry)
            raise

    async def _dispatch(self) -> None:
        while taken := await self._next_batch():
            task = asyncio.create_task(self._run(*taken))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        await asyncio.gather(*self._running)

    async def _next_batch(self) -> tuple[list[_Entry[Item, Result]], Claim] | None:
        """Wait until there is work for an idle instance; None means that it is time to end."""
        while True:
            self._drop_expired()
            if self._places.closed and not self._queue and not self._places.held:
                return None
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
        # A wide batch has the CPUs of others, who should not begin before it ends.
        ahead = 0 if self._wide_batches else self._ahead
        if not self._queue or (
            self._instances.idle + ahead < 1 and not self._instances.borrowable()
        ):
            return None
        if self._places.closed or len(self._like_oldest()) >= self._runner.max_batch:
            return 0.0
        return self._queue[0].submitted + self._max_batch_delay_s - time.monotonic()

    def _like_oldest(self) -> list[_Entry[Item, Result]]:
        """The oldest entry, and those that may be of its batch."""
        oldest = self._queue[0]
        if self._runner.max_batch == 1:
            return [oldest]
        return [entry for entry in self._queue if self._runner.alike(oldest.item, entry.item)]

    def _take(self) -> tuple[list[_Entry[Item, Result]], Claim]:
        """Take the oldest entry and those like it, leaving a share to other idle instances."""
        alike = self._like_oldest()
        batch = alike[: min(self._runner.max_batch, self._share_of(len(alike)))]
        taken = set(map(id, batch))
        self._queue = deque(entry for entry in self._queue if id(entry) not in taken)
        idle, borrowable = max(0, self._instances.idle), self._instances.borrowable()
        if idle + borrowable < 1:
            self._handed_over.append(batch)
            claim = Claim(1, 0)
        else:
            _give_back_places(batch)
            span = self._fair_span(batch, idle + borrowable)
            claim = Claim(min(span, idle), max(0, span - idle))
        self._claim(claim)
        return batch, claim

    def _share_of(self, count: int) -> int:
        """How many of so many items to take, to leave as many to each other idle instance."""
        return math.ceil(count / max(1, self._instances.idle))

    def _fair_span(self, batch: list[_Entry[Item, Result]], idle: int) -> int:
        """How many of so many idle instances the batch gets, if each who waits is to have as many.

        Whom it waited for will be back: two clients would otherwise take turns with all of them.
        """
        returning = any(entry.had_to_wait for entry in batch)
        fair = idle // (1 + self._places.held + returning)
        return max(span for span in self._runner.spans if span <= max(1, fair))

    def _claim(self, claim: Claim) -> None:
        self._instances.take(claim)
        self._wide_batches += claim.span > 1

    def _release(self, claim: Claim) -> None:
        self._instances.give_back(claim)
        self._wide_batches -= claim.span > 1
        if claim.own and self._handed_over:
            _give_back_places(self._handed_over.popleft())
        self._changed.set()

    def _drop_expired(self) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self._queue if entry.deadline <= now]:
            self._forget(entry)

    def _forget(self, entry: _Entry[Item, Result]) -> None:
        """Drop an entry whose client left or whose deadline passed, if no batch has taken it."""
        with contextlib.suppress(ValueError):
            self._queue.remove(entry)
            entry.drop(self._metrics)

    async def _run(self, batch: list[_Entry[Item, Result]], claim: Claim) -> None:
        threads, span = self._threads if claim.own else self._threads_for_borrowed, claim.span
        try:
            wanted, results, times = await threads.start(lambda: self._call(batch, span))
        except Exception as error:  # noqa: BLE001 - whatever it raises, its waiters must hear
            self._batch_failed(batch, error)
        else:
            self._batch_ended(wanted, results, times, span)
            for entry in batch:
                if entry not in wanted:
                    entry.drop(self._metrics)
        finally:
            self._release(claim)

    def _call(
        self, batch: list[_Entry[Item, Result]], span: int
    ) -> tuple[list[_Entry[Item, Result]], Sequence[Result | Exception], tuple[float, float]]:
        """On a thread: who is still wanted, what becomes of each, and when that began and ended."""
        started = time.monotonic()
        wanted = [entry for entry in batch if entry.is_wanted()]
        try:
            results = self._runner.run([entry.item for entry in wanted], span) if wanted else []
        finally:
            ended = time.monotonic()
            self._metrics.engine_busy.inc(span * (ended - started))
        return wanted, results, (started, ended)

    def _batch_failed(self, batch: list[_Entry[Item, Result]], error: Exception) -> None:
        self.failures_in_a_row += 1
        log.error("batch failed", images=len(batch), exc_info=error)
        for entry in batch:
            if not entry.future.done():
                entry.future.set_exception(
                    ModelFailedError("the model could not run", retry_after_s=1)
                )

    def _batch_ended(
        self,
        batch: list[_Entry[Item, Result]],
        results: Sequence[Result | Exception],
        times: tuple[float, float],
        span: int,
    ) -> None:
        started, ended = times
        seconds = ended - started
        if not all(isinstance(result, Exception) for result in results):
            self.failures_in_a_row = 0
            self.last_success = ended
            self._metrics.batch_size.observe(len(batch))
            seconds_each = seconds * span / len(batch) / self._instances.count
            self._places.one_took(seconds_each)
        for entry, result in zip(batch, results, strict=True):
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Outcome(result, started - entry.submitted, seconds))


def _give_back_places(batch: Sequence[_Entry[Item, Result]]) -> None:
    for entry in batch:
        entry.place.give_back()


def is_past(deadline: float) -> bool:
    """Whether a deadline is why a wait was cut short; timers may fire a moment early."""
    return time.monotonic() > deadline - TIMER_SLACK_S
