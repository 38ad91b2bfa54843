"""The bounds of a request's head, on a real connection."""

import asyncio
import json
import socket
from collections.abc import Mapping
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

import service.protocol as protocol_module
from service.protocol import REFUSES, BoundedHttpProtocol
from test_app import serving

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


def refuses_posts(scope: Mapping[str, Any]) -> bool:
    return bool(scope["method"] == "POST")


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Refuses a POST, and says whether a task was begun for it."""
    if not refuses_posts(scope):
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

    answer = exchange(EMPTY_POST, app=waiting, refuses=refuses_posts)
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
            return bool(refuses({"path": path, "method": "POST", "state": {}}))

        assert not refused("/detect")
        client.app.state.running.detector.refuse_new()  # type: ignore[attr-defined]
        assert refused("/detect")
        assert not refused("/model")
