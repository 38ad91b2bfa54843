"""The time that a request may take."""

import asyncio
import time
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from starlette.types import Receive

from service.errors import ClientLeftError, DeadlineError

T = TypeVar("T")


class Deadline:
    """Ends the work on a request when its time is over or its client has left; nothing else does.

    The time runs from the construction on; the context is the work.

    Args:
        limit_s: The time of a request that asks for none, in seconds.
        asked_ms: The time that the request asks for, in milliseconds, if it does.

    Attributes:
        at: `time.monotonic()` when the time is over.

    Raises:
        DeadlineError: The time was over before the context was left.
    """

    def __init__(self, limit_s: float, asked_ms: int | None) -> None:
        self._limit_s = limit_s
        self._started = time.monotonic()
        seconds = self._seconds(asked_ms)
        self.at = self._started + seconds
        self._clock = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._clock.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._clock.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise DeadlineError("the deadline passed before the answer was ready") from error

    def set(self, asked_ms: int | None) -> None:
        """Take another time from the start on: a body may ask for one as well as a query."""
        self.at = self._started + self._seconds(asked_ms)
        self._clock.reschedule(asyncio.get_running_loop().time() + self.at - time.monotonic())

    def leave_to_images(self) -> None:
        """Cut the work short no more: each of several images is given up by itself at `at`."""
        if not self._clock.expired():
            self._clock.reschedule(None)

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def unless_client_leaves(self, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
        """Finish the work, unless the client leaves first.

        Raises:
            ClientLeftError: The client left.
        """
        watch = asyncio.create_task(self._watch_client(receive))
        try:
            return await work
        except asyncio.CancelledError:
            if watch.done():
                raise ClientLeftError("the client closed the connection") from None
            raise
        finally:
            watch.cancel()

    async def _watch_client(self, receive: Receive) -> None:
        """Let the time be over at once when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time())

    def _seconds(self, asked_ms: int | None) -> float:
        return self._limit_s if asked_ms is None else asked_ms / 1000
