"""HTTP/1.1 with bounds that uvicorn leaves open, and refusals that cost little."""

import asyncio
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from httptools import HttpRequestParser
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadTooLargeError, MalformedRequestError, ServiceError
from service.http.schemas import Problem

MOST_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 15.0
# How long a client may go on sending what nobody wants, once the last answer is out.
LINGER_S: Final = 15.0
END_OF_HEAD: Final = b"\r\n\r\n"
NO_ANSWER_YET: Final = b"HTTP/1.1 100 "
UPGRADE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large"}

# An application's state may have this under that name: gives what answers a request without its
# body and without waiting for anything, or None where that is not so.
Refuses = Callable[[Scope], ASGIApp | None]
REFUSES: Final = "refuses"


def _without_upgrade(head: bytes) -> bytes:
    """A head that asks for nothing but HTTP/1.1, as clients of HTTP/2 do that may also speak this.

    The parser would take a body for the first words of another protocol.
    """
    return UPGRADE.sub(b"", head) if b"upgrade:" in head.lower() else head


class _WholeAnswer:
    """A connection's transport that sends an answer's head with its body, not before it.

    One packet costs either side half of what two do.

    Args:
        transport: Where to send.
        hang_up: What to do when nothing more is to be sent.

    Attributes:
        asked_for_body: Whether a client who waited for that was told to send the body.
    """

    def __init__(self, transport: asyncio.Transport, hang_up: Callable[[], None]) -> None:
        self._transport = transport
        self._hang_up = hang_up
        self._head: bytes | None = None
        self.asked_for_body = False

    def write(self, data: bytes) -> None:
        """Send, or keep what an answer starts with."""
        if data.startswith(NO_ANSWER_YET):
            self.asked_for_body = True
        elif self._head is None:
            self._head = data
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self.write(b"")

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is left, and hang up."""
        self.flush()
        self._hang_up()


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a request whose head is too long, and hangs up on one that does not come.

    What the application refuses is answered as soon as its head is there: in a crowd that takes
    the CPUs from nobody who was let in.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the base's
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._in_head = True
        self._hang_up: asyncio.TimerHandle | None = None
        self._may_answer_now = True
        self._bytes_beside_body = 0
        self._unread = 0
        self._answer: _WholeAnswer | None = None
        self._body_is_next = False
        self._unwanted_bytes = 0
        self._may_linger = True
        self._lingers = False
        self._end_of_piece = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came; its first request should too."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._expect_nothing()
        super().connection_lost(exc)
        # uvicorn leaves the timer of a connection that was reset, and so the connection's memory.
        self._unset_keepalive_if_required()
        # Who refer to each other would be kept until the garbage is collected.
        self._answer = None
        if self.cycle is not None:
            self.cycle.transport = self.transport

    def data_received(self, data: bytes) -> None:
        """Read on: heads one by one, and of a refused body nothing."""
        self._may_answer_now = True
        if self._unwanted_bytes:
            self._unset_keepalive_if_required()
        at = self._skip(data, 0)
        while at < len(data) and not self.transport.is_closing():
            if self._in_head:
                end = self._end_of_head(data, at)
                # What ends a head may come in pieces.
                self._end_of_piece = (self._end_of_piece + data[max(at, end - 3) : end])[-3:]
                self._read(_without_upgrade(data[at:end]))
            else:
                end = len(data)
                self._read(memoryview(data)[at:])
                # Perhaps it holds the start of a head.
                self._end_of_piece = data[-3:]
            at = self._skip(data, end)
        # uvicorn waits for the next request from the answer on, but a refused body comes after it.
        answered = getattr(self.cycle, "response_complete", False)  # no cycle before a request
        if answered and self.timeout_keep_alive_task is None:
            self._expect_request()

    def _end_of_head(self, data: bytes, at: int) -> int:
        """Where the head ends that goes on there; the length of the data if it goes on further."""
        before = len(self._end_of_piece)
        if before:
            found = (self._end_of_piece + data[at : at + 3]).find(END_OF_HEAD)
            if found >= 0:
                return at + found + len(END_OF_HEAD) - before
        found = data.find(END_OF_HEAD, at)
        return len(data) if found < 0 else found + len(END_OF_HEAD)

    def _read(self, data: bytes | memoryview) -> None:
        """Parse, and count while a head is incomplete."""
        self._head_bytes += len(data)
        self._bytes_beside_body += len(data)
        super().data_received(data)  # type: ignore[arg-type] # the parser takes any buffer
        # Nearly every head comes whole, and needs no timer.
        if self._in_head and self._head_bytes and self._hang_up is None:
            self._expect_head()
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLargeError(f"a head may have {MOST_HEAD_BYTES} bytes"))
        if not self._in_head and self._bytes_beside_body > MOST_HEAD_BYTES:
            self._refuse_trailers()
        if self._unwanted_bytes:
            # Another parser, which expects a head: this one would take a body apart.
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._expect_next_head()

    def _skip(self, data: bytes, at: int) -> int:
        """Where the body of a refused request ends that goes on there, or the data."""
        skipped = min(self._unwanted_bytes, len(data) - at)
        self._unwanted_bytes -= skipped
        if self._lingers and self._in_head and not self._unwanted_bytes:
            self.transport.close()
        return at + skipped

    def _hang_up_after_body(self) -> None:
        """Hang up, but not on somebody who still sends: their system would lose the answer."""
        if self._in_head or not self.cycle.response_complete or not self._may_linger:
            self.transport.close()
        elif not self._lingers:
            self._lingers = True
            # They hear that the answer was the last.
            self.transport.write_eof()
            self._hang_up = self.loop.call_later(LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Answer what is asked, and then wait for nobody."""
        self._may_linger = False
        super().shutdown()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; nobody asks for trailers."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._bytes_beside_body = 0
        if self._unwanted_bytes:
            self._unwanted_bytes -= len(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._lingers:
            # The body has ended, and the connection will.
            return
        if self.parser.should_upgrade():
            # Only of a head that came in pieces; the parser will not tell its body from others.
            self._refuse(MalformedRequestError("no other protocol is spoken here"))
            return
        self._in_head, self._end_of_piece = False, b""
        self._bytes_beside_body = 0
        self._expect_nothing()
        self._body_is_next = True
        super().on_headers_complete()
        self._body_is_next = False

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        self._expect_next_head()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out; a body that was refused unread is not kept until the next request."""
        if self._answer is not None:
            self._answer.flush()
        if self.cycle.response_complete:
            self.cycle.body = bytearray()
            asked = self._answer is not None and self._answer.asked_for_body
            if self.expect_100_continue and not asked and not self._in_head:
                # Whether its body will come, only the client knows.
                self._hang_up_after_body()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long; who does not read an answer either would hold it for ever."""
        unread, self._unread = self._unread, self.transport.get_write_buffer_size()
        if self._unread and self._unread != unread:
            self._expect_request()
            return
        if self._unread:
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - the base's
        """Begin to answer; who is refused is answered here and now, and no task begins.

        The body has not been parsed yet, and never is kept. Of many requests that came together
        only the first is, so that others have their turn.
        """
        self._answer = _WholeAnswer(self.transport, self._hang_up_after_body)
        cycle.transport = self._answer  # type: ignore[assignment] # all that it uses of one
        refuses: Refuses | None = self.app_state.get(REFUSES)
        # Only an answer behind others, of this connection or of a client who does not read, waits.
        waits = self.flow.write_paused or self.transport.get_write_buffer_size() or self.pipeline
        if refuses is None or waits or not self._may_answer_now:
            super()._start_asgi_task(cycle, app)
            return
        refusal = refuses(cast("Scope", cycle.scope))
        if refusal is None:
            super()._start_asgi_task(cycle, app)
            return
        self._may_answer_now = False
        if self._body_is_next:
            # Of a body in chunks only the parser sees the end.
            self._unwanted_bytes = int(dict(self.headers).get(b"content-length", 0))
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        answering = cycle.run_asgi(refusal)  # type: ignore[arg-type] # starlette's word for one
        with suppress(StopIteration):
            answering.send(None)
            answering.throw(RuntimeError("a refusal waited for something"))

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(MalformedRequestError(msg))

    def _expect_request(self) -> None:
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expect_head(self) -> None:
        self._hang_up = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _expect_next_head(self) -> None:
        # The bytes counted so far were the last message's.
        self._in_head, self._head_bytes = True, 0

    def _expect_nothing(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None

    def _refuse_trailers(self) -> None:
        if self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(HeadTooLargeError(f"trailers may have {MOST_HEAD_BYTES} bytes"))

    def _refuse(self, error: ServiceError) -> None:
        """Write a problem document, which no application ever saw, and close."""
        if self._lingers or self.transport.is_closing():
            # The last answer is out.
            self.transport.close()
            return
        request_id = uuid.uuid4().hex
        body = Problem.of(error, request_id).model_dump_json().encode()
        head = (
            f"HTTP/1.1 {error.status} {REASONS[error.status]}\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-ID: {request_id}\r\n"
            "Server-Timing: total;dur=0\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
