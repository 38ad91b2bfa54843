"""The bounds of a request's head, on a real connection."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

import service.protocol as protocol_module
from service.protocol import REFUSES, BoundedHttpProtocol


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

    return asyncio.run(main())


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


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


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


def test_requests_in_a_pipeline_are_refused_in_their_turn() -> None:
    post = POST.replace(b"90000", b"0")
    answer = exchange(GET + post * 500 + GET, app=refusing, refuses=refuses_posts)
    assert answer.count(b"HTTP/1.1 503") == 500
    assert answer.startswith(b"HTTP/1.1 204")
    assert answer.count(b"HTTP/1.1 204") == 2


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
