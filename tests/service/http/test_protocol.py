"""The bounds of a request's head, on a real connection."""

import asyncio
import gc
import json
import socket
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

import service.http.protocol as protocol_module
from service.http.protocol import REFUSES, BoundedHttpProtocol
from support.client import serving

POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def exchange(*sent: bytes, app: Any = application, refuses: Any = None) -> bytes:
    """Everything a server says to these bytes until it hangs up."""

    async def main() -> bytes:
        config = uvicorn.Config(app, log_config=None, timeout_keep_alive=1)
        config.load()
        loop = asyncio.get_running_loop()
        state = ServerState()
        server = await loop.create_server(
            lambda: BoundedHttpProtocol(config, state, {REFUSES: refuses} if refuses else {}),
            "127.0.0.1",
            0,
        )
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in sent:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        server.close()
        return answer

    return uvloop.run(main())


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    assert b"X-Request-ID: " in head
    parsed: dict[str, Any] = json.loads(body)
    return parsed


def test_ordinary_requests_are_answered_one_after_another() -> None:
    answer = exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert answer.count(b"HTTP/1.1 204") == 3


def test_a_large_body_is_no_large_head() -> None:
    body = b"x" * 300_000
    answer = exchange(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: "])
def test_a_head_that_never_ends_is_431(start: bytes) -> None:
    answer = exchange(start, *[b"x" * 40_000] * 2)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem(answer)["status"] == 431


def test_what_is_not_http_is_a_problem_document() -> None:
    answer = exchange(b"\x16\x03\x01\x02\x00\x01")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem(answer)["type"].endswith(":malformed-request")


@pytest.mark.parametrize("before", [b"", GET])
def test_a_target_that_is_none_is_a_problem_document(before: bytes) -> None:
    answer = exchange(before, b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 204") == before.count(b"GET")
    assert b"HTTP/1.1 400" in answer


@pytest.mark.parametrize("cut", [0, 20, 95, 200])
def test_who_offers_http_2_is_answered_in_http_1(cut: int) -> None:
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nContent-Length: 90000\r\n\r\n"
    )
    request = head + b"x" * 90_000
    answer = exchange(request[:cut], request[cut:] + GET)
    assert answer.count(b"HTTP/1.1 204") == 2
    assert answer.count(b"HTTP/1.1") == 2


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"


def test_small_chunks_and_trailers_are_read() -> None:
    body = b"1\r\na\r\n" * 30_000 + b"0\r\nX-Sum: 1\r\n\r\n"
    assert exchange(CHUNKED + body).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("endless", [b"a:b\r\n", b"x: " + b"y" * 1000])
def test_trailers_without_end_are_431(endless: bytes) -> None:
    parts = [b"0\r\n", *[endless * (40_000 // len(endless))] * 3]
    answer = exchange(CHUNKED, *parts)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem(answer)["status"] == 431
    # Who was answered already hears no more.
    refused = exchange(CHUNKED, *parts, app=refusing, refuses=refuses_posts)
    assert refused.count(b"HTTP/1.1") == 1


def test_who_does_not_read_the_answer_is_hung_up_on() -> None:
    async def verbose(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    async def main() -> None:
        config = uvicorn.Config(verbose, log_config=None, timeout_keep_alive=1)
        config.load()
        gone = asyncio.Event()

        class Watched(BoundedHttpProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                gone.set()

        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Watched(config, ServerState(), {}), "127.0.0.1", 0
        )
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.sendall(GET)
            await asyncio.wait_for(gone.wait(), 20)
        server.close()

    uvloop.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"])
def test_a_head_that_does_not_come_is_hung_up_on(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_module, "HEAD_TIMEOUT_S", 0.2)
    assert exchange(sent).count(b"HTTP/1.1") == sent.count(b"\r\n\r\n")


def refuses_posts(scope: Mapping[str, Any]) -> Any:
    return refusing if scope["method"] == "POST" else None


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Refuses a POST, and says whether a task was begun for it."""
    if scope["method"] != "POST":
        await application(scope, receive, send)
        return
    task = b"none" if asyncio.current_task() is None else b"one"
    headers = [(b"x-task", task), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def test_who_is_refused_needs_no_task_and_may_go_on_with_the_connection() -> None:
    parts = (POST + b"x" * 50_000, b"x" * 40_000, POST, b"x" * 90_000, GET)
    answer = exchange(*parts, app=refusing, refuses=refuses_posts)
    assert answer.count(b"HTTP/1.1 503") == answer.count(b"x-task: none") == 2
    assert answer.count(b"HTTP/1.1 204") == 1
    assert answer.index(b"HTTP/1.1 204") > answer.rindex(b"HTTP/1.1 503")


def test_who_was_refused_and_then_says_nothing_is_hung_up_on() -> None:
    # The exchange ends when the server ends it.
    answer = exchange(POST, b"x" * 90_000, app=refusing, refuses=refuses_posts)
    assert answer.count(b"HTTP/1.1") == 1
    assert exchange(POST, b"x" * 10, app=refusing, refuses=refuses_posts) == answer


HANGS_UP, SAYS_NO_MORE = b"(hangs up)", b"(says no more)"


class Wire:
    """A transport to nowhere; remembers what is written."""

    def __init__(self) -> None:
        self.written = list[bytes]()
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written.append(data)

    def write_eof(self) -> None:
        self.written.append(SAYS_NO_MORE)

    def close(self) -> None:
        if not self.closing:
            self.written.append(HANGS_UP)
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Those who call `fed` do not stop."""

    def resume_reading(self) -> None:
        """Nor have they stopped."""


def fed(*pieces: bytes, app: Any = application, refuses: Any = None) -> list[bytes]:
    """What a server writes, call by call, who reads exactly these pieces."""

    async def main() -> list[bytes]:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        state = {REFUSES: refuses} if refuses else {}
        protocol, wire = BoundedHttpProtocol(config, ServerState(), state), Wire()
        protocol.connection_made(cast("asyncio.Transport", wire))
        for piece in pieces:
            if wire.closing:
                break
            protocol.data_received(piece)
            for _ in range(10):
                await asyncio.sleep(0)
        written = wire.written.copy()
        protocol.connection_lost(None)
        return written

    return asyncio.run(main())


def sent(method: bytes, body: bytes) -> bytes:
    return b"%b / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (method, len(body), body)


# What a parser that lost its place would take for heads.
TRAP = b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\n"


async def echoing(scope: Any, receive: Any, send: Any) -> None:
    """Gives the body back."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode() + body})


def test_wherever_packets_end_requests_and_refused_bodies_do_not() -> None:
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    post, put = sent(b"POST", TRAP), sent(b"PUT", TRAP)
    stream = post + put + post + chunked + put + sent(b"POST", b"") + GET
    expected = [b"503", b"PUT" + TRAP, b"503", b"503", b"PUT" + TRAP, b"503", b"GET"]
    for cut in range(1, len(stream)):
        answers = fed(stream[:cut], stream[cut:], app=either, refuses=refuses_posts)
        assert len(answers) == len(expected)
        for answer, part in zip(answers, expected, strict=True):
            assert part in answer
    letters = [stream[at : at + 1] for at in range(len(stream))]
    assert len(fed(*letters, app=either, refuses=refuses_posts)) == len(expected)


async def refusing_all(scope: Any, receive: Any, send: Any) -> None:
    await refusing(scope | {"method": "POST"}, receive, send)


async def either(scope: Any, receive: Any, send: Any) -> None:
    await (refusing if scope["method"] == "POST" else echoing)(scope, receive, send)


def test_a_refused_body_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[bytes]()
    monkeypatch.setattr(BoundedHttpProtocol, "on_body", lambda _, body: parsed.append(body))
    answers = fed(POST + b"x" * 50_000, b"x" * 40_000 + GET, app=either, refuses=refuses_posts)
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 503", b"HTTP/1.1 200"]
    assert not parsed


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_is_written_at_once(method: bytes) -> None:
    (answer,) = fed(sent(method, b"body"), app=echoing)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (b"body" in answer) == (method == b"GET")


def test_who_asks_before_sending_is_told_to_go_on_at_once() -> None:
    asks = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")
    goes_on, answer = fed(asks, b"x" * 90_000, app=echoing)
    assert goes_on == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_answer_in_parts_is_not_held_back() -> None:
    async def streaming(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"first", b"second"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    first, second, last = fed(GET, app=streaming)
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert (second, last) == (b"6\r\nsecond\r\n", b"0\r\n\r\n")


def test_a_head_without_its_body_is_sent_before_the_connection_is_closed() -> None:
    async def breaking(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    answer, end = fed(GET, app=breaking)
    assert end == HANGS_UP
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_refused_in_the_middle_of_a_packet_ends_where_its_body_does() -> None:
    first, second = sent(b"PUT", b"x" * 100), sent(b"POST", TRAP)
    stream, heard = first + second + GET, len(first) - 50
    for cut in range(heard + 1, len(stream)):
        # The first is answered unread, so the second is refused while a body is parsed.
        pieces = stream[:heard], stream[heard:cut], stream[cut:]
        answers = fed(*pieces, app=refusing_all, refuses=refuses_posts)
        assert [answer[9:12] for answer in answers] == [b"503", b"503", b"503"]


def test_a_request_that_is_refused_once_it_is_there_has_no_more_to_come() -> None:
    answers = fed(sent(b"PUT", b"") + sent(b"POST", TRAP), GET, app=either, refuses=refuses_posts)
    assert [answer[9:12] for answer in answers] == [b"200", b"503", b"200"]


CLOSES = POST.replace(b"Host", b"Connection: close\r\nHost")


@pytest.mark.parametrize("refuses", [None, refuses_posts])
def test_who_wants_the_connection_closed_hears_the_answer_to_a_long_body(refuses: Any) -> None:
    # The system of a client who sends to a closed connection throws away what it has received.
    start, end = CLOSES + b"x" * 45_000, b"x" * 45_000
    answer, *after = fed(start, app=refusing, refuses=refuses)
    assert b"connection: close" in answer
    assert after == [SAYS_NO_MORE]
    for rest in (end, end + GET):
        written = fed(start, rest, app=refusing, refuses=refuses)
        assert written == [answer, SAYS_NO_MORE, HANGS_UP]


def test_who_never_ends_a_body_that_was_answered_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol_module, "LINGER_S", 0.2)

    async def main() -> float:
        config = uvicorn.Config(refusing, log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: BoundedHttpProtocol(config, ServerState(), {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(CLOSES)
        assert (await reader.read()).startswith(b"HTTP/1.1 503")
        began = loop.time()
        with suppress(ConnectionError):
            while loop.time() < began + 10:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        server.close()
        return loop.time() - began

    assert uvloop.run(main()) < 10


def test_a_server_that_ends_waits_for_no_body() -> None:
    async def main() -> list[bytes]:
        config = uvicorn.Config(refusing, log_config=None)
        config.load()
        protocol, wire = BoundedHttpProtocol(config, ServerState(), {}), Wire()
        protocol.connection_made(cast("asyncio.Transport", wire))
        protocol.data_received(POST + b"x" * 1000)
        # Before the application has answered.
        protocol.shutdown()
        await asyncio.sleep(0.01)
        return wire.written

    answer, end = asyncio.run(main())
    assert b"connection: close" in answer
    assert end == HANGS_UP


@pytest.mark.parametrize("after", [GET, b"no request\r\n\r\n"])
def test_after_the_last_answer_nothing_is_asked_of_the_application(after: bytes) -> None:
    asked = list[str]()

    async def closing(scope: Any, _receive: Any, send: Any) -> None:
        asked.append(scope["method"])
        headers = [(b"connection", b"close"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer, *ends = fed(POST + b"x" * 45_000, b"x" * 45_000 + after, app=closing)
    assert answer.startswith(b"HTTP/1.1 503")
    assert (ends, asked) == ([SAYS_NO_MORE, HANGS_UP], ["POST"])


@pytest.mark.parametrize("refuses", [None, refuses_posts])
def test_of_who_asks_before_sending_and_is_refused_nothing_more_is_read(refuses: Any) -> None:
    asks = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")
    answer, *ends = fed(asks, app=refusing, refuses=refuses)
    assert answer.startswith(b"HTTP/1.1 503")
    assert ends == [SAYS_NO_MORE]
    # Who has sent the body all the same has left no doubt, if it was read.
    ends = fed(asks + b"x" * 90_000, app=refusing, refuses=refuses)[1:]
    assert ends == ([] if refuses is None else [SAYS_NO_MORE, HANGS_UP])


def test_who_asked_before_sending_hears_an_answer_in_the_middle() -> None:
    async def impatient(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await refusing_all(scope, receive, send)

    asks = CLOSES.replace(b"Host", b"Expect: 100-continue\r\nHost")
    goes_on, answer, *ends = fed(asks, b"x" * 45_000, b"x" * 45_000, app=impatient)
    assert goes_on.startswith(b"HTTP/1.1 100")
    assert answer.startswith(b"HTTP/1.1 503")
    assert ends == [SAYS_NO_MORE, HANGS_UP]
    # The body is sure to come, so that the connection can go on after it.
    stays = asks.replace(b"Connection: close", b"X: y")
    answers = fed(stays, b"x" * 45_000, b"x" * 45_000 + GET, app=impatient)
    assert [answer[9:12] for answer in answers] == [b"100", b"503", b"503"]


def test_a_head_in_pieces_that_asks_for_another_protocol_is_a_problem_document() -> None:
    head = b"POST / HTTP/1.1\r\nConnection: Upgrade\r\nUp", b"grade: h2c\r\n\r\n"
    answer, end = fed(*head, GET, app=echoing)
    assert answer.startswith(b"HTTP/1.1 400")
    assert end == HANGS_UP


@pytest.mark.parametrize("request_", [GET, CLOSES + b"x" * 90_000, POST + b"x" * 90_000])
def test_of_a_connection_that_ended_nothing_waits_for_the_garbage_collector(
    request_: bytes,
) -> None:
    alive = weakref.WeakSet[BoundedHttpProtocol]()

    class Counted(BoundedHttpProtocol):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            alive.add(self)

    async def main() -> None:
        config = uvicorn.Config(either, log_config=None)
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Counted(config, ServerState(), {REFUSES: refuses_posts}), "127.0.0.1", 0
        )
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(request_)
            assert (await reader.readline()).startswith(b"HTTP/1.1 ")
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        server.close()
        assert not alive

    gc.disable()
    try:
        uvloop.run(main())
    finally:
        gc.enable()


EMPTY_POST = POST.replace(b"90000", b"0")


def test_requests_in_a_pipeline_are_refused_in_their_turn() -> None:
    answer = exchange(GET + EMPTY_POST * 500 + GET, app=refusing, refuses=refuses_posts)
    assert answer.count(b"HTTP/1.1 503") == 500
    assert answer.startswith(b"HTTP/1.1 204")
    assert answer.count(b"HTTP/1.1 204") == 2


def test_only_one_of_many_that_come_together_is_refused_before_others_have_their_turn() -> None:
    answer = exchange(EMPTY_POST * 300, EMPTY_POST, app=refusing, refuses=refuses_posts)
    assert answer.count(b"x-task: none") == 2
    assert answer.count(b"x-task: one") == 299


def test_a_refused_client_that_asked_before_sending_is_hung_up_on() -> None:
    # Its next request might be taken for its body.
    asks = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")
    answer = exchange(asks, GET, app=refusing, refuses=refuses_posts)
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1") == 1
    # Nor can the client of an application that answers unread rely on the connection.
    assert exchange(asks, GET, app=refusing).count(b"HTTP/1.1") == 1


def test_a_refusal_that_waits_is_a_bug_that_is_answered() -> None:
    async def waiting(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.sleep(0)

    answer = exchange(EMPTY_POST, refuses=lambda _: waiting)
    assert answer.startswith(b"HTTP/1.1 500")


def test_nothing_is_left_of_a_connection_that_was_reset() -> None:
    async def main() -> bool:
        config = uvicorn.Config(refusing, log_config=None, timeout_keep_alive=60)
        config.load()
        protocols = list[BoundedHttpProtocol]()

        def connect() -> BoundedHttpProtocol:
            protocols.append(BoundedHttpProtocol(config, ServerState(), {REFUSES: refuses_posts}))
            return protocols[-1]

        server = await asyncio.get_running_loop().create_server(connect, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(POST + b"x" * 1000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        protocols[0].connection_lost(ConnectionResetError())
        writer.close()
        server.close()
        return protocols[0].timeout_keep_alive_task is None

    assert uvloop.run(main())


def test_a_body_that_was_refused_unread_is_not_kept() -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> int:
        config = uvicorn.Config(refuse, log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        protocol = BoundedHttpProtocol(config, ServerState(), {})
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + b"x" * 50_000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")
        kept = len(protocol.cycle.body)
        writer.close()
        server.close()
        return kept

    assert asyncio.run(main()) == 0


def test_the_application_says_what_it_refuses() -> None:
    with serving() as client:
        refuses = client.app_state[REFUSES]

        def refused(path: str) -> bool:
            return refuses({"path": path, "method": "POST", "state": {}}) is not None

        assert not refused("/detect")
        client.app.state.running.detector.refuse_new()  # type: ignore[attr-defined]
        assert refused("/detect")
        assert not refused("/model")


@pytest.mark.parametrize(
    ("headers", "status", "slug"),
    [
        (b"", 401, "unauthorized"),
        (b"X-API-Key: wrong\r\n", 401, "unauthorized"),
        (b"X-API-Key: s3cret\r\n", 503, "draining"),
        (b"Authorization: Bearer s3cret\r\n", 503, "draining"),
    ],
)
def test_a_refusal_says_why_to_those_who_may_know(headers: bytes, status: int, slug: str) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\n" + headers
    with serving(api_key="s3cret") as client:
        client.app.state.running.detector.refuse_new()  # type: ignore[attr-defined]
        request = head + b"X-Request-ID: mine\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000
        (answer,) = fed(request, app=client.app, refuses=client.app_state[REFUSES])
        counted = client.get("/metrics").text
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: mine" in top
    assert json.loads(body)["type"] == f"urn:problem-type:yolox-serve:{slug}"
    assert f'yolox_rejections_total{{reason="{slug}"}} 1.0' in counted
    assert f'yolox_requests_total{{endpoint="/detect",status="{status}"}} 1.0' in counted
