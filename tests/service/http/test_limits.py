"""The bounds of a connection."""

import asyncio
import gc
import json
import re
import socket
import weakref
from contextlib import suppress
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.http.connection import ending
from service.http.connection.early_refusal import RefusingConnection
from support.connections import (
    CHUNKED,
    CLOSES,
    GET,
    HANGS_UP,
    POST,
    SAYS_NO_MORE,
    FakeDoor,
    Wire,
    application,
    echoing,
    either,
    exchange,
    fed,
    refuses_posts,
    refusing,
    refusing_all,
    sent,
)


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"x-request-id: " in head
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


def test_small_chunks_and_trailers_are_read() -> None:
    body = b"1\r\na\r\n" * 30_000 + b"0\r\nX-Sum: 1\r\n\r\n"
    assert exchange(CHUNKED + body).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("endless", [b"a:b\r\n", b"x: " + b"y" * 1000])
def test_trailers_without_end_are_431(endless: bytes) -> None:
    parts = [b"0\r\n", *[endless * (40_000 // len(endless))] * 3]
    answer = exchange(CHUNKED, *parts)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem(answer)["status"] == 431
    # A client that was answered already hears no more.
    refused = exchange(CHUNKED, *parts, app=refusing, refuses=refuses_posts)
    assert refused.count(b"HTTP/1.1") == 1


def test_who_does_not_read_the_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "READING_S", 0.3)

    async def verbose(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    async def main() -> None:
        config = uvicorn.Config(verbose, log_config=None)
        config.load()
        gone = asyncio.Event()

        class Watched(RefusingConnection):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                gone.set()

        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Watched(FakeDoor(), config, ServerState(), {}), "127.0.0.1", 0
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
    monkeypatch.setattr(ending, "HEAD_TIMEOUT_S", 0.2)
    assert exchange(sent).count(b"HTTP/1.1") == sent.count(b"\r\n\r\n")


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
    monkeypatch.setattr(ending, "LINGER_S", 0.2)

    async def main() -> float:
        config = uvicorn.Config(refusing, log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: RefusingConnection(FakeDoor(), config, ServerState(), {}), "127.0.0.1", 0
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
        protocol, wire = RefusingConnection(FakeDoor(), config, ServerState(), {}), Wire()
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


@pytest.mark.parametrize("request_", [GET, CLOSES + b"x" * 90_000, POST + b"x" * 90_000])
def test_of_a_connection_that_ended_nothing_waits_for_the_garbage_collector(
    request_: bytes,
) -> None:
    alive = weakref.WeakSet[RefusingConnection]()

    class Counted(RefusingConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            alive.add(self)

    async def main() -> None:
        config = uvicorn.Config(either, log_config=None)
        config.load()
        server = await asyncio.get_running_loop().create_server(
            lambda: Counted(FakeDoor(refuses_posts), config, ServerState(), {}), "127.0.0.1", 0
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


def test_nothing_is_left_of_a_connection_that_was_reset() -> None:
    async def main() -> bool:
        config = uvicorn.Config(refusing, log_config=None, timeout_keep_alive=60)
        config.load()
        protocols = list[RefusingConnection]()

        def connect() -> RefusingConnection:
            protocols.append(RefusingConnection(FakeDoor(refuses_posts), config, ServerState(), {}))
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
        protocol = RefusingConnection(FakeDoor(), config, ServerState(), {})
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


def test_requests_behind_one_that_has_no_answer_are_not_even_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads, pauses = [], []
    takes_head, pause = RefusingConnection.takes_head, Wire.pause_reading
    monkeypatch.setattr(
        RefusingConnection, "takes_head", lambda self: heads.append(1) or takes_head(self)
    )
    monkeypatch.setattr(Wire, "pause_reading", lambda self: pauses.append(1) or pause(self))

    async def waiting(_scope: Any, _receive: Any, _send: Any) -> None:
        await asyncio.Event().wait()

    assert fed(GET * 5000, GET * 5000, app=waiting) == []
    assert len(heads) == 1
    assert pauses


@pytest.mark.parametrize("cut", [1, 20, 40, 41, 60, len(GET) * 30 - 3])
def test_requests_that_come_together_are_all_answered_in_their_order(cut: int) -> None:
    async def numbered(scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        headers = [(b"x-path", scope["path"].encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    stream = b"".join(GET.replace(b"/ ", b"/%d " % number, 1) for number in range(30))
    answers = fed(stream[:cut], stream[cut:], app=numbered, turns=400)
    paths = [re.findall(rb"x-path: /(\d+)", answer)[0] for answer in answers]
    assert paths == [b"%d" % number for number in range(30)]


@pytest.mark.parametrize("refuses", [None, refuses_posts])
@pytest.mark.parametrize("trickles", [True, False])
def test_a_body_whose_answer_is_out_has_one_time_however_slowly_it_comes(
    monkeypatch: pytest.MonkeyPatch, refuses: Any, *, trickles: bool
) -> None:
    monkeypatch.setattr(ending, "LINGER_S", 0.4)

    async def main() -> float:
        config = uvicorn.Config(refusing, log_config=None, timeout_keep_alive=60)
        config.load()
        loop, state = asyncio.get_running_loop(), ServerState()
        server = await loop.create_server(
            lambda: RefusingConnection(FakeDoor(refuses), config, state, {}), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(POST + b"x")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 503")
        began = loop.time()
        closed = asyncio.ensure_future(reader.read())
        while not closed.done():
            with suppress(ConnectionError):
                if trickles:
                    writer.write(b"x")
                await asyncio.sleep(0.05)
            assert loop.time() - began < 20
        took = loop.time() - began
        writer.close()
        server.close()
        return took

    assert uvloop.run(main()) > 0.3


def test_a_body_that_comes_in_time_leaves_the_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ending, "LINGER_S", 0.2)
    for refuses in (None, refuses_posts):
        answer = exchange(POST + b"x" * 89_999, b"x", GET, app=refusing, refuses=refuses)
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"503", b"204"]


def test_a_client_that_leaves_a_pipeline_is_told_to_the_request_that_is_being_answered() -> None:
    heard = list[str]()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            pass
        heard.append(f"{scope['method']} {message['type']}")
        await application(scope, receive, send)

    async def main() -> list[bytes]:
        config = uvicorn.Config(waiting, log_config=None)
        config.load()
        protocol, wire = RefusingConnection(FakeDoor(), config, ServerState(), {}), Wire()
        protocol.connection_made(cast("asyncio.Transport", wire))
        # In one packet, so that the second is parsed with the body of the first.
        protocol.data_received(sent(b"POST", b"body") + GET)
        await asyncio.sleep(0.01)
        protocol.connection_lost(None)
        await asyncio.sleep(0.01)
        return wire.written

    assert asyncio.run(main()) == [HANGS_UP]
    assert heard == ["POST http.disconnect"]
