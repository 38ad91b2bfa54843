"""Bounds on what a client sends beside bodies, and the order of requests and answers."""

import asyncio
from typing import Any, Final

from service.errors import HeadTooLargeError, MalformedRequestError, ServiceError
from service.http.connection.ending import TELLING_S, EndingConnection
from service.http.connection.framing import VERSIONS, alien_version, read_framing

MAX_HEAD_BYTES: Final = 64 * 1024


class LimitedConnection(EndingConnection):
    """Refuses a head that is too long or says too little, and takes one request after another.

    A request that comes before the answer to the one before it waits unparsed, and meanwhile
    nothing is read from its connection.

    Args:
        args: See `EndingConnection`.
        kwargs: uvicorn's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self._is_reading = False
        # Bytes that the client sent after a request that has no answer yet.
        self._ahead = b""
        # Why what came last is refused, and what follows it not even parsed.
        self._refusal: ServiceError | None = None
        self._rest_s = 0.0
        self._rest_timer: asyncio.TimerHandle | None = None
        # Bytes of the body that are still to come; unknown for one in chunks.
        self._body_left: int | None = 0
        self._bytes_beside_body = 0

    def lost(self) -> None:
        """Forget requests that nobody will answer."""
        super().lost()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        self._ahead = b""

    # From the first byte of a request to its last.

    def received(self, data: bytes) -> None:
        """Parse each head by itself, so that what follows it may be treated in another way."""
        if self._ahead:
            self._wait_with(self._ahead + data)
        elif self._refusal is None:
            self._is_reading = True
            self._take(data)
            self._is_reading = False
            self._bound_unwanted_body()

    def _take(self, data: bytes) -> None:
        at = self.skip(data, 0)
        while at < len(data) and not self.transport.is_closing() and self._refusal is None:
            if self.in_head and (self.awaits_answer or self._rest_timer is not None):
                self._wait_with(data[at:])
                return
            end = self._take_head(data, at) if self.in_head else self._take_body(data, at)
            at = self.skip(data, end)
        # uvicorn counts the time to the next request from the answer on; but the rest of a body
        # that was refused unread comes after it.
        if self.answered and not self.is_awaiting_request:
            self.await_request()

    def _take_head(self, data: bytes, at: int) -> int:
        end = self.head.end_in(data, at)
        if self.head.size > MAX_HEAD_BYTES:
            self.refuse(HeadTooLargeError(f"a head may have {MAX_HEAD_BYTES} bytes"))
            return end
        self.parse(self.head.wanted(data[at:end]))
        # Nearly every head comes whole, and needs no timer.
        if self.in_head and self.head.size and not self.is_timed:
            self.expect_head()
        return end

    def _take_body(self, data: bytes, at: int) -> int:
        # The end of a body in chunks is the parser's to find, which may go on with the next head.
        end = len(data) if self._body_left is None else min(len(data), at + self._body_left)
        self._bytes_beside_body += end - at
        self.parse(memoryview(data)[at:end])
        if self.in_head:
            self.head.expect(data[-3:] if self._body_left is None else b"")
        elif self._bytes_beside_body > MAX_HEAD_BYTES and self.answered:
            self.transport.close()
        elif self._bytes_beside_body > MAX_HEAD_BYTES:
            self.refuse(HeadTooLargeError(f"trailers may have {MAX_HEAD_BYTES} bytes"))
        return end

    def skip(self, data: bytes, at: int) -> int:
        """Where to parse on in the data; a connection that only waited for this point is closed."""
        del data
        if self.lingers and self.in_head and self._refusal is None:
            self.transport.close()
        return at

    def takes_field(self) -> bool:
        """Nothing reads trailers."""
        return self.in_head

    def takes_head(self) -> bool:
        """Refuse other protocols, a head that says too little, and what follows the last answer."""
        if self.lingers:
            return False
        framing = read_framing(self.headers, self.http_version)
        if isinstance(framing, ServiceError):
            self.refuse(framing)
            return False
        if self.asks_for_other_protocol:
            self.refuse(MalformedRequestError("this server speaks no other protocol"))
            return False
        self.in_head, self.awaits_answer = False, True
        self._body_left = framing.body_length
        self._bytes_beside_body = 0
        self.expect_nothing()
        return True

    def got_body(self, count: int) -> None:
        """Trailers are counted from here on."""
        if self._body_left is not None:
            self._body_left -= count
        self._bytes_beside_body = 0

    def message_ended(self) -> None:
        """A head comes next."""
        if not self.lingers:
            self.expect_nothing()
        self.expect_next_head()

    def expect_next_head(self) -> None:
        """Count from here on; the bytes so far were those of the last message."""
        self.in_head = True
        self.head.expect()

    def garbled(self, message: str) -> None:
        """Refuse bytes that are no HTTP, or that of another age."""
        version = self.head.version if self.in_head else None
        if version is None or version in VERSIONS:
            self.refuse(MalformedRequestError(message))
        else:
            self.refuse(alien_version(version))

    def refuse(self, error: ServiceError) -> None:
        """Answer with a problem document, and hang up; answers that are due go first."""
        if self.lingers or (self.answering and not self.in_head) or self.transport.is_closing():
            # This would come after the last answer, or in the middle of one.
            self.transport.close()
            return
        self._refusal = error
        if self.owes_answer:
            self.pause_reading()
        else:
            self._refuse_in_turn(error)

    # From the answer on.

    def answer_ended(self) -> None:
        """Go on with the next request, once others had their turn."""
        self.unread()
        if self._refusal is not None:
            if self.answered:
                self._refuse_in_turn(self._refusal)
            return
        self.awaits_answer = False
        if self._rest_s and not self.transport.is_closing():
            self.pause_reading()
            self._rest_timer = self.loop.call_later(self._rest_s, self._wake)
        elif self._ahead or self.has_ended_sending:
            self.loop.call_soon(self._go_on)
        self._rest_s = 0.0
        if not self._is_reading:
            self._bound_unwanted_body()

    def rest(self, seconds: float) -> None:
        """Read nothing for this time after the answer that comes next."""
        self._rest_s = seconds

    @property
    def owes_body(self) -> bool:
        """Whether a part of a body is still to come."""
        return not self.in_head

    @property
    def owes_answer(self) -> bool:
        """Whether a whole request has come, or may have, whose answer is not out."""
        return super().owes_answer or bool(self._ahead)

    @property
    def is_spare(self) -> bool:
        """Whether the client would lose nothing but the connection, if it were closed."""
        return super().is_spare and not self._ahead

    def _refuse_in_turn(self, error: ServiceError) -> None:
        if not self.transport.is_closing():
            # Its body may be what is refused. Nothing may be written after the refusal.
            self.abandon()
            refusal = self.door.rejecting(error)
            self.answer_no_request(refusal, lambda: self.linger(TELLING_S))

    def _wait_with(self, data: bytes) -> None:
        self._ahead = data
        self.pause_reading()

    def _wake(self) -> None:
        self._rest_timer = None
        self.resume_reading()
        self._go_on()

    def _go_on(self) -> None:
        data, self._ahead = self._ahead, b""
        if data:
            self._take(data)
        if self.has_ended_sending and not self.awaits_answer and not self._ahead:
            self.transport.close()

    def _bound_unwanted_body(self) -> None:
        if self.answered and self.owes_body:
            self.expect_rest_of_body()
