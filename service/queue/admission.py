"""Who may come in: places in the queue, and the requests that are being read."""

import math
import time
from collections.abc import Callable
from typing import Final, Self

from service.errors import DrainingError, QueueFullError, ServiceError
from service.observe.metrics import Metrics

# A body that takes longer is slow, and keeps no room free for itself.
PROMPT_S: Final = 0.25


class Place:
    """One image's place in the queue, from its acceptance until its batch starts.

    It is taken before the image is decoded, so that a crowd is refused before it costs anything.
    Leaving the context gives the place back if it is still held.
    """

    def __init__(self, places: "Places") -> None:
        self._places: Places | None = places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Free the place; a second time does nothing."""
        if self._places is not None:
            self._places.freed()
            self._places = None


class Arrival:
    """A request whose body is read within its context; for a moment, room is kept for one image."""

    def __init__(self, arrivals: "dict[Arrival, float]") -> None:
        self._arrivals = arrivals

    def __enter__(self) -> Self:
        self._arrivals[self] = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._arrivals.pop(self, None)


class Places:
    """The places of a queue. All of it lives on the event loop.

    Args:
        count: How many there are.
        metrics: Where to count.

    Attributes:
        held: How many are taken.
        draining: Whether new requests are refused because the server is shutting down.
        closed: Whether nobody gets a place any more.
        on_freed: Called when one is given back and no others will be taken.
    """

    def __init__(self, count: int, metrics: Metrics) -> None:
        self._count = count
        self._metrics = metrics
        self._arrivals: dict[Arrival, float] = {}
        self._seconds_each = 0.0
        self.held = 0
        self.draining = False
        self.closed = False
        self.on_freed: Callable[[], None] = lambda: None
        metrics.queue_capacity.set(count)

    def refuse_new(self) -> None:
        """From now on `arrive` lets nobody in; who is in may still reserve places."""
        self.draining = True

    def close(self) -> None:
        """From now on nobody gets a place."""
        self.draining = self.closed = True

    def refusal(self) -> ServiceError | None:
        """Why no new request is let in, or None."""
        return None if self._lets_in() else self._error(closed=self.draining)

    def arrive(self) -> Arrival:
        """Let a new request in, before anything is done for it; enter it while its body is read.

        Others who are being read count, so that no more of a crowd are read than there are places;
        but each only for a moment, so that slow senders keep nobody out.

        Raises:
            QueueFullError: Every place is taken, or will be by those who are being read.
            DrainingError: The server is shutting down.
        """
        if not self._lets_in():
            raise self._error(closed=self.draining)
        return Arrival(self._arrivals)

    def reserve(self) -> Place:
        """Take a place for one image, at once or not at all.

        Raises:
            QueueFullError: Every place is taken.
            DrainingError: The queue is closed.
        """
        if self.closed or self.held >= self._count:
            raise self._error(closed=self.closed)
        self.held += 1
        self._metrics.queue_images.set(self.held)
        return Place(self)

    def freed(self) -> None:
        """A place was given back; called by the place."""
        self.held -= 1
        self._metrics.queue_images.set(self.held)
        if self.closed:
            self.on_freed()

    def one_took(self, seconds: float) -> None:
        """Learn how fast the queue moves.

        Args:
            seconds: From one image to the next, with all instances at work.
        """
        self._seconds_each = 0.9 * (self._seconds_each or seconds) + 0.1 * seconds

    def _lets_in(self) -> bool:
        prompt_since = time.monotonic() - PROMPT_S
        slow = [arrival for arrival, began in self._arrivals.items() if began < prompt_since]
        for arrival in slow:
            del self._arrivals[arrival]
        return not self.draining and self.held + len(self._arrivals) < self._count

    def _error(self, *, closed: bool) -> ServiceError:
        if closed:
            return DrainingError("the server is shutting down", retry_after_s=1)
        return QueueFullError(
            f"all {self._count} places in the queue are taken",
            retry_after_s=max(1, math.ceil(self.held * self._seconds_each)),
        )
