"""All of uvicorn's connection that the server overrides or reaches into.

uvicorn documents none of it, so `uvicorn_check` looks at the start whether it is still there. The
class turns its methods into hooks under names of our own, and other files override only those.
docs/decisions/http-overrides.md says what they buy; `server_hooks` does the same for its server.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from httptools import HttpRequestParser
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.connection.whole_answer import INTERIM_ANSWER, WholeAnswer


class Connection(HttpToolsProtocol):
    """uvicorn's side of an HTTP/1.1 connection; subclasses override its hooks.

    Attributes:
        head_just_came: Whether the request that begins is the one whose head was just parsed, and
            its body was not; false for a request of a pipeline, which had to wait.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*args, **kwargs)
        self._answer: WholeAnswer | None = None
        self._bytes_of_earlier_answers = 0
        self._in_turn: RequestResponseCycle | None = None
        self.head_just_came = False

    # The hooks.

    def opened(self) -> None:
        """The connection was made."""

    def lost(self) -> None:
        """The connection ended."""

    def received(self, data: bytes) -> None:
        """The client sent something."""
        self.parse(data)

    def takes_field(self) -> bool:
        """Whether the field that was parsed is wanted: it may be a trailer."""
        return True

    def takes_head(self) -> bool:
        """A head is whole; whether its request is to be answered."""
        return True

    def got_body(self, count: int) -> None:
        """This number of bytes of a body was parsed."""

    def message_ended(self) -> None:
        """A body was parsed to its end."""

    def answerer(self, scope: Scope) -> ASGIApp | None:  # noqa: ARG002 - a hook
        """An application that answers this request without a task or a wait; mostly None."""
        return None

    def answer_ended(self) -> None:
        """The whole answer to a request is written."""

    def unread(self) -> None:
        """The client does not read as fast as the server writes."""

    def ended_sending(self) -> bool:
        """The client has closed its side; whether to keep the connection for an answer."""
        return False

    def answered_unasked(self) -> None:
        """The client has its answer, and nobody told it whether to send the body that it holds."""

    def hang_up(self) -> None:
        """The last answer is out."""
        self.transport.close()

    def idle(self) -> bool:
        """Nothing came for as long as a connection is kept; whether to end it."""
        return True

    def stopping(self) -> bool:
        """The server begins to stop; whether to close, unless a request is being answered."""
        return True

    def garbled(self, message: str) -> None:
        """The client sent something that is not HTTP."""
        raise NotImplementedError

    # Tools for the hooks.

    def parse(self, data: bytes | memoryview) -> None:
        """Parse what the client sent."""
        super().data_received(data)  # type: ignore[arg-type] # the parser takes any buffer

    def parse_anew(self) -> None:
        """Expect a head, whatever the message was that has been parsed so far."""
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def pause_reading(self) -> None:
        """Read nothing more from the client, until the server wants to again."""
        self.flow.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self.flow.resume_reading()

    @property
    def http_version(self) -> str:
        """The version of HTTP in the head that was parsed last."""
        return self.parser.get_http_version()

    @property
    def unread_bytes(self) -> int:
        """How many bytes of answers wait for the client's side to take them."""
        return self.transport.get_write_buffer_size()

    @property
    def read_bytes(self) -> int:
        """How many bytes of answers the client's side has taken."""
        return self._bytes_written - self.unread_bytes

    @property
    def _bytes_written(self) -> int:
        return self._bytes_of_earlier_answers + (self._answer.bytes_written if self._answer else 0)

    def probe_client(self) -> None:
        """Send something that a client ignores, and to which the system of one that left objects.

        A client that has left looks like one that has only said its last word.
        """
        if not self.answering and self.cycle.scope["http_version"] == "1.1":
            self.transport.write(INTERIM_ANSWER + b"Continue\r\n\r\n")

    @property
    def answered(self) -> bool:
        """Whether the last request has its whole answer."""
        return self._cycle_is("response_complete")

    @property
    def answering(self) -> bool:
        """Whether a part of an answer is out, and the rest is not."""
        return self._cycle_is("response_started") and not self.answered

    def _cycle_is(self, state: str) -> bool:
        return getattr(self.cycle, state, False)  # there is no cycle before the first request

    @property
    def must_wait(self) -> bool:
        """Whether an answer would come behind others, or the client does not read its answers."""
        unread = self.flow.write_paused or self.unread_bytes > 0
        return unread or bool(self.pipeline)

    @property
    def declared_length(self) -> int:
        """The length of the body whose head was parsed last; 0 where only its end will tell."""
        return int(dict(self.headers).get(b"content-length", 0))

    @property
    def is_awaiting_request(self) -> bool:
        """Whether the time for the next request runs."""
        return self.timeout_keep_alive_task is not None

    def await_request(self) -> None:
        """Let the time for the next request run."""
        if not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def await_nothing(self) -> None:
        """Stop that time."""
        self._unset_keepalive_if_required()

    @property
    def asks_for_other_protocol(self) -> bool:
        """Whether the head that was parsed last would go on in something else than HTTP/1.1."""
        return self.parser.should_upgrade()

    def close_after_answer(self) -> None:
        """Close when the answer that is due is out."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def abandon(self) -> None:
        """Have whoever answers a request see that the client is gone, and write nothing more."""
        if self._in_turn is not None and not self._in_turn.response_complete:
            self._in_turn.disconnected = True
            self._in_turn.message_event.set()

    def answer_no_request(self, app: ASGIApp, hang_up: Callable[[], None] | None = None) -> None:
        """Have an application answer what is no request, and hang up: by default, close."""
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "-",
            "path": "",
            "query_string": b"",
            "headers": [],
            "client": self.client,
        }
        answer = WholeAnswer(self.transport, hang_up or self.transport.close)
        cycle = RequestResponseCycle(
            scope=cast("Any", scope),
            transport=cast("asyncio.Transport", answer),
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=lambda: None,
        )
        _run_now(cycle, app)

    # Methods that uvicorn calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self.lost()
        # uvicorn tells only the last request of a pipeline.
        self.abandon()
        super().connection_lost(exc)
        # uvicorn leaves the timer of a connection that was reset, and so the connection's memory.
        self._unset_keepalive_if_required()
        # Objects that refer to each other would be kept until the garbage collector comes.
        self._answer = self._in_turn = None
        if self.cycle is not None:
            self.cycle.transport = self.transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self.received(data)

    def pause_writing(self) -> None:
        """Called by asyncio."""
        super().pause_writing()
        self.unread()

    def eof_received(self) -> bool:  # type: ignore[override] # uvicorn's gives None
        """Called by asyncio, which closes the connection unless this is true."""
        return self.ended_sending()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if self.takes_field():
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self.takes_head():
            self.head_just_came = True
            super().on_headers_complete()
            self.head_just_came = False

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self.got_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.message_ended()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The cycle's; a body that was refused unread is not kept until the next request."""
        if (answer := self._answer) is not None:
            answer.flush()
        if self.cycle.response_complete:
            self.cycle.body = bytearray()
            if self.expect_100_continue and not (answer and answer.asked_for_body):
                self.answered_unasked()
        super().on_response_complete()
        self.answer_ended()

    def timeout_keep_alive_handler(self) -> None:
        """Called by a timer."""
        if self.idle():
            super().timeout_keep_alive_handler()
        else:
            self.await_request()

    def shutdown(self) -> None:
        """Called by the server."""
        if self.stopping():
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Called for bytes that the parser does not take."""
        self.garbled(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        self._bytes_of_earlier_answers = self._bytes_written
        self._answer, self._in_turn = WholeAnswer(self.transport, self.hang_up), cycle
        cycle.transport = self._answer  # type: ignore[assignment] # all that it uses of one
        answerer = self.answerer(cast("Scope", cycle.scope))
        if answerer is None:
            super()._start_asgi_task(cycle, app)
        else:
            _run_now(cycle, answerer)


def _run_now(cycle: RequestResponseCycle, app: ASGIApp) -> None:
    """Have a request answered without a task, by an application that waits for nothing."""
    if cycle.waiting_for_100_continue:
        # The client may send its body or not; its next request could be taken for it.
        cycle.keep_alive = False
    answering = cycle.run_asgi(app)  # type: ignore[arg-type] # starlette's word for one
    with suppress(StopIteration):
        answering.send(None)
        answering.throw(RuntimeError("an answer that was to wait for nothing waited"))
