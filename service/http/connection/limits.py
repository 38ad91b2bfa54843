"""Bounds that uvicorn leaves open: how much a client sends beside bodies, and how long it takes."""

import asyncio
import re
from typing import Any, Final

from service.errors import HeadTooLargeError, MalformedRequestError, ServiceError
from service.http.connection.door import Door
from service.http.connection.uvicorn_hooks import Connection

MAX_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 15.0
# How long a client may go on sending a body that nobody wants, once the last answer is out.
LINGER_S: Final = 15.0
END_OF_HEAD: Final = b"\r\n\r\n"
UPGRADE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class LimitedConnection(Connection):
    """Refuses a head that is too long, and hangs up on a client that sends or reads nothing.

    Args:
        door: Answers the requests that are refused.
        args: uvicorn's.
        kwargs: uvicorn's.

    Attributes:
        in_head: Whether a head is expected or has begun, rather than a body.
        lingers: Whether the last answer is out, and the client still sends the body before it.
    """

    def __init__(self, door: Door, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self._door = door
        self.in_head, self.lingers = True, False
        self._head_end = _HeadEnd()
        self._is_reading = self._awaits_answer = False
        # Bytes that the client sent after a request that has no answer yet.
        self._ahead = b""
        self._head_bytes = 0
        self._bytes_beside_body = 0
        self._unread_bytes = 0
        self._may_linger = True
        self._hang_up_timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """Wait for the first request, but not for ever."""
        self._expect_head()

    def lost(self) -> None:
        """Forget the timer, and requests that nobody will answer."""
        self.expect_nothing()
        self._ahead = b""

    def received(self, data: bytes) -> None:
        """Parse each head by itself, so that what follows it may be treated in another way.

        A request that comes before the answer to the one before it waits unparsed, and meanwhile
        nothing is read from its connection.
        """
        if self._ahead:
            self._wait_with(self._ahead + data)
            return
        self._is_reading = True
        self._take(data)
        self._is_reading = False
        self._bound_unwanted_body()

    def _take(self, data: bytes) -> None:
        at = self.skip(data, 0)
        while at < len(data) and not self.transport.is_closing():
            if self.in_head and self._awaits_answer:
                self._wait_with(data[at:])
                return
            if self.in_head:
                end = self._head_end.find(data, at)
                self._read(_without_upgrade(data[at:end]))
            else:
                end = len(data)
                self._read(memoryview(data)[at:])
                # The next head may have begun in it.
                self._head_end.seen = data[-3:]
            at = self.skip(data, end)
        # uvicorn counts the time to the next request from the answer on; but the rest of a body
        # that was refused unread comes after it.
        if self.answered and not self.is_awaiting_request:
            self.await_request()

    def answer_ended(self) -> None:
        """Go on with the next request, once others had their turn."""
        self._awaits_answer = False
        if self._ahead:
            self.loop.call_soon(self._go_on)
        if not self._is_reading:
            self._bound_unwanted_body()

    @property
    def owes_body(self) -> bool:
        """Whether a part of a body is still to come."""
        return not self.in_head

    def _bound_unwanted_body(self) -> None:
        """Give the rest of a body whose answer is out one time, however slowly it comes."""
        if self.answered and self.owes_body and self._hang_up_timer is None:
            self._hang_up_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _wait_with(self, data: bytes) -> None:
        self._ahead = data
        self.pause_reading()

    def _go_on(self) -> None:
        data, self._ahead = self._ahead, b""
        if data:
            self._take(data)

    def skip(self, data: bytes, at: int) -> int:
        """Where to parse on in the data; a connection that only waited for this point is closed."""
        del data
        if self.lingers and self.in_head:
            self.transport.close()
        return at

    def takes_field(self) -> bool:
        """Nothing reads trailers."""
        return self.in_head

    def takes_head(self) -> bool:
        """Refuse another protocol, and what comes after the last answer."""
        if self.lingers:
            return False
        if self.asks_for_other_protocol:
            # So it was in a head that came in pieces; the parser would not find its body's end.
            self.refuse(MalformedRequestError("this server speaks no other protocol"))
            return False
        self.in_head, self._awaits_answer, self._head_end.seen = False, True, b""
        self._bytes_beside_body = 0
        self.expect_nothing()
        return True

    def got_body(self, count: int) -> None:
        """Trailers are counted from here on."""
        del count
        self._bytes_beside_body = 0

    def message_ended(self) -> None:
        """A head comes next."""
        if not self.lingers:
            self.expect_nothing()
        self.expect_next_head()

    def expect_next_head(self) -> None:
        """Count from here on; the bytes so far were those of the last message."""
        self.in_head, self._head_bytes = True, 0

    def answered_unasked(self) -> None:
        """Hang up: only the client knows whether its body will come."""
        if not self.in_head:
            self.hang_up()

    def hang_up(self) -> None:
        """Close, but not on a client that still sends: its system would throw the answer away."""
        if self.in_head or not self.answered or not self._may_linger:
            self.transport.close()
        elif not self.lingers:
            self.lingers = True
            # This tells the client that the answer was the last.
            self.transport.write_eof()
            self.expect_nothing()
            self._hang_up_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def idle(self) -> bool:
        """End the connection, unless the client has read something of its answer meanwhile."""
        before, self._unread_bytes = self._unread_bytes, self.transport.get_write_buffer_size()
        if self._unread_bytes and self._unread_bytes != before:
            return False
        if self._unread_bytes:
            # To close would wait for the client to read the rest.
            self.transport.abort()
        return True

    def stopping(self) -> bool:
        """Wait for no body that is not wanted, but for a head that has begun."""
        self._may_linger = False
        return not (self.in_head and self._head_bytes)

    def refuse(self, error: ServiceError) -> None:
        """Answer with a problem document, and hang up."""
        if self.lingers or self.answering or self.transport.is_closing():
            # This would come after the last answer, or in the middle of one.
            self.transport.close()
        else:
            self.answer_no_request(self._door.rejecting(error))

    def _read(self, data: bytes | memoryview) -> None:
        """Parse, and count while a head or trailers are incomplete."""
        self._head_bytes += len(data)
        self._bytes_beside_body += len(data)
        self.parse(data)
        if self.in_head:
            # Nearly every head comes whole, and needs no timer.
            if self._head_bytes and self._hang_up_timer is None:
                self._expect_head()
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.refuse(HeadTooLargeError(f"a head may have {MAX_HEAD_BYTES} bytes"))
        elif self._bytes_beside_body > MAX_HEAD_BYTES:
            if self.answered:
                self.transport.close()
            else:
                self.refuse(HeadTooLargeError(f"trailers may have {MAX_HEAD_BYTES} bytes"))

    def _expect_head(self) -> None:
        self._hang_up_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def expect_nothing(self) -> None:
        """Stop the time that a head, or the rest of a body, may take."""
        if self._hang_up_timer is not None:
            self._hang_up_timer.cancel()
            self._hang_up_timer = None


class _HeadEnd:
    """Finds where a head ends, though the four bytes that end it may come in pieces.

    Attributes:
        seen: The last bytes, up to three, of the pieces so far.
    """

    def __init__(self) -> None:
        self.seen = b""

    def find(self, data: bytes, at: int) -> int:
        """Where the head that goes on at an index ends; the length of the data if it goes on."""
        end = self._find(data, at)
        self.seen = (self.seen + data[max(at, end - 3) : end])[-3:]
        return end

    def _find(self, data: bytes, at: int) -> int:
        if self.seen:
            found = (self.seen + data[at : at + 3]).find(END_OF_HEAD)
            if found >= 0:
                return at + found + len(END_OF_HEAD) - len(self.seen)
        found = data.find(END_OF_HEAD, at)
        return len(data) if found < 0 else found + len(END_OF_HEAD)


def _without_upgrade(head: bytes) -> bytes:
    """A head that asks for nothing but HTTP/1.1, for clients that would also speak HTTP/2.

    The parser would take a body for the first words of another protocol.
    """
    return UPGRADE.sub(b"", head) if b"upgrade:" in head.lower() else head
