"""HTTP/1.1 with bounds that uvicorn leaves open, and refusals that cost little."""

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import HeadTooLargeError, MalformedRequestError, ServiceError
from service.schemas import Problem

MOST_HEAD_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 15.0
UPGRADE: Final = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
REASONS: Final = {400: "Bad Request", 431: "Request Header Fields Too Large"}

# An application's state may have this under that name: whether it will answer a request without
# its body and without waiting for anything.
Refuses = Callable[[Mapping[str, Any]], bool]
REFUSES: Final = "refuses"


def _without_upgrade(data: bytes) -> bytes:
    """A head that asks for nothing but HTTP/1.1, as clients of HTTP/2 do that may also speak this.

    The parser would take a body for the first words of another protocol.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    if b"upgrade:" not in head.lower():
        return data
    return UPGRADE.sub(b"", head) + data[len(head) :]


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

    def data_received(self, data: bytes) -> None:
        """Read on, and count while a head is incomplete."""
        self._head_bytes += len(data)
        self._bytes_beside_body += len(data)
        if self._in_head:
            data = _without_upgrade(data)
        self._may_answer_now = True
        super().data_received(data)
        # Nearly every head comes whole, and needs no timer.
        if self._in_head and self._head_bytes and self._hang_up is None:
            self._expect_head()
        if self._in_head and self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadTooLargeError(f"a head may have {MOST_HEAD_BYTES} bytes"))
        if not self._in_head and self._bytes_beside_body > MOST_HEAD_BYTES:
            self._refuse_trailers()
        # uvicorn waits for the next request from the answer on, but a refused body comes after it.
        answered = getattr(self.cycle, "response_complete", False)  # no cycle before a request
        if answered and self.timeout_keep_alive_task is None:
            self._expect_request()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; nobody asks for trailers."""
        if self._in_head:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._bytes_beside_body = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._bytes_beside_body = 0
        self._expect_nothing()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole; what comes next is another head."""
        # The bytes counted so far were this message's.
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out; a body that was refused unread is not kept until the next request."""
        if self.cycle.response_complete:
            self.cycle.body = bytearray()
            if self.cycle.waiting_for_100_continue:
                # Whether its body will come, only the client knows.
                self.transport.close()
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
        refuses: Refuses | None = self.app_state.get(REFUSES)
        # Only an answer behind others, of this connection or of a client who does not read, waits.
        waits = self.flow.write_paused or self.transport.get_write_buffer_size() or self.pipeline
        if refuses is None or waits or not self._may_answer_now or not refuses(cycle.scope):
            super()._start_asgi_task(cycle, app)
            return
        self._may_answer_now = False
        if cycle.waiting_for_100_continue:
            cycle.keep_alive = False
        answering = cycle.run_asgi(app)
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
