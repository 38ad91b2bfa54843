"""The bounds on a request: its time, and the memory of its body and of its answer."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from service.errors import (
    BusyError,
    ClientLeftError,
    DeadlineError,
    TooLargeError,
    UnreadAnswersError,
)
from service.http.access.note import Note
from service.http.bodies.coding import decompressed, is_compressed

T = TypeVar("T")

# Shorter answers are written whole, and wait in the connection's own buffer.
SLICE_BYTES: Final = 64 * 1024

Fields = dict[bytes, bytes]


class BodyMemory:
    """A bound on the bytes of all request bodies that are held at once.

    Args:
        max_bytes: The bound.

    Attributes:
        capacity: The bound.
        free: How many bytes are left of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.capacity = self.free = max_bytes


class Bounds:
    """The bounds on one request, whose work is the context.

    They end the work when its time is over or its client has left; nothing else does. The time runs
    from the construction on. The memory is held until the context is left.

    Args:
        memory: Where the body takes its memory from.
        limit_s: The time of a request that asks for none, in seconds; None for no bound.
        asked_ms: The time that the request asks for, in milliseconds, if it does.

    Attributes:
        started: `time.monotonic()` at the construction.
        deadline: `time.monotonic()` when the time is over.
        held: The bytes of memory.

    Raises:
        DeadlineError: The time was over before the context was left.
    """

    def __init__(
        self, memory: BodyMemory, limit_s: float | None = None, asked_ms: int | None = None
    ) -> None:
        seconds = limit_s if asked_ms is None else asked_ms / 1000
        self._memory = memory
        self._limit_s = limit_s
        self._asked_ms = asked_ms
        self._clock = asyncio.timeout(seconds)
        self.started = time.monotonic()
        self.deadline = self.started + (float("inf") if seconds is None else seconds)
        self.held = 0

    async def __aenter__(self) -> Self:
        await self._clock.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._memory.free += self.held
        try:
            await self._clock.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise DeadlineError(
                f"the deadline passed before the answer was ready; {self._advice()}"
            ) from error

    @property
    def capacity(self) -> int:
        """The bound on the bytes of all bodies."""
        return self._memory.capacity

    def _advice(self) -> str:
        """How a client gets an answer next time."""
        if self._asked_ms is not None:
            return f"give it more than timeout_ms={self._asked_ms}, or leave timeout_ms out"
        return (
            "send fewer or smaller images in a request, or try again when the server is less busy"
        )

    def grow(self, count: int) -> None:
        """Hold this number of bytes more.

        Raises:
            BusyError: They are not free.
        """
        if count > self._memory.free:
            raise BusyError("too many bytes of requests are held at once", retry_after_s=1)
        self._memory.free -= count
        self.held += count

    async def read(self, receive: Receive, fields: Fields, max_bytes: int, note: Note) -> bytes:
        """The whole body; a declared length over the limit is refused before anything is read.

        Args:
            receive: ASGI's.
            fields: The headers of the request.
            max_bytes: Maximum length of the body, decompressed.
            note: Where its length is noted, as far as it was read.

        Raises:
            TooLargeError: The body is longer.
            BusyError: All bodies together have too many bytes.
            MalformedRequestError: The body is compressed, and damaged.
            UnsupportedCodingError: It is compressed in a way that the server does not know.
        """
        # The HTTP parser takes nothing but a number.
        if int(fields.get(b"content-length", b"0")) > max_bytes:
            raise too_many_bytes(max_bytes)
        stream: AsyncIterable[bytes] = _chunks(receive)
        coding = fields.get(b"content-encoding")
        if coding is not None and is_compressed(coding.decode("latin-1")):
            stream = decompressed(stream)
        chunks = []
        async for chunk in stream:
            if self.held + len(chunk) > max_bytes:
                raise too_many_bytes(max_bytes)
            self.grow(len(chunk))
            note["bytes"] = self.held
            chunks.append(chunk)
        return b"".join(chunks)

    def set_time(self, asked_ms: int | None) -> None:
        """Take another time from the start on: a body may ask for one as well as a query."""
        self._asked_ms = asked_ms
        seconds = self._limit_s if asked_ms is None else asked_ms / 1000
        if seconds is not None:
            self.deadline = self.started + seconds
            now = asyncio.get_running_loop().time()
            self._clock.reschedule(now + self.deadline - time.monotonic())

    def leave_to_images(self) -> None:
        """Cut the work short no more: each of several images is given up by itself in time."""
        if not self._clock.expired():
            self._clock.reschedule(None)

    async def unless_client_leaves(self, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
        """Finish the work, unless the client leaves first.

        Raises:
            ClientLeftError: The client left.
        """
        watch = _ClientWatch(receive, self._end_now)
        try:
            return await work
        except asyncio.CancelledError:
            if watch.has_left:
                raise ClientLeftError("the client closed the connection") from None
            raise
        finally:
            watch.stop()

    def _end_now(self) -> None:
        """Let the time be over at once."""
        if not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time())


class _ClientWatch:
    """Waits for the client to leave, from the end of its body on.

    Args:
        receive: ASGI's.
        on_left: Called when the client leaves, unless the watch was stopped before.

    Attributes:
        has_left: Whether the client has left.
    """

    def __init__(self, receive: Receive, on_left: Callable[[], None]) -> None:
        self._receive = receive
        self._on_left = on_left
        self.has_left = False
        self._is_stopped = False
        self._go_on()

    def stop(self) -> None:
        """Wait no more."""
        # A message that came in this turn of the event loop has its callback under way already.
        self._is_stopped = True
        self._message.remove_done_callback(self._came)
        self._message.cancel()

    def _go_on(self) -> None:
        self._message = asyncio.ensure_future(self._receive())
        self._message.add_done_callback(self._came)

    def _came(self, message: "asyncio.Future[Message]") -> None:
        if self._is_stopped or message.cancelled() or message.exception() is not None:
            return
        if message.result()["type"] == "http.disconnect":
            self.has_left = True
            self._on_left()
        else:
            self._go_on()


class AnswerMemory:
    """A bound on the bytes of long answers that wait for their clients to read them.

    Args:
        max_bytes: The bound. A single answer may exceed it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response that is whole in memory.

        Raises:
            UnreadAnswersError: It does not fit beside the others; nothing has been sent.
        """
        body = memoryview(response.body)
        if len(body) <= SLICE_BYTES:
            await response(scope, receive, send)
            return
        start = {"status": response.status_code, "headers": response.raw_headers}
        with self._holding(len(body)):
            await send({"type": "http.response.start", **start})
            for at in range(0, len(body), SLICE_BYTES):
                more, part = at + SLICE_BYTES < len(body), bytes(body[at : at + SLICE_BYTES])
                await send({"type": "http.response.body", "body": part, "more_body": more})

    @contextmanager
    def _holding(self, count: int) -> Iterator[None]:
        if self._held and self._held + count > self._max_bytes:
            raise UnreadAnswersError("clients have yet to read other long answers", retry_after_s=1)
        self._held += count
        try:
            yield
        finally:
            self._held -= count


def fields_of(scope: Scope) -> Fields:
    """The headers of a request by name; the first of a name counts."""
    return dict(reversed(scope["headers"]))


def too_many_bytes(limit: int) -> TooLargeError:
    """The error of a request whose body is longer than this."""
    return TooLargeError(f"a request's body may have at most {limit} bytes")


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    """The body of a request as it comes.

    Raises:
        ClientDisconnect: The client left before its end.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        yield message.get("body", b"")
