"""The rules of HTTP/1.1 for a connection, in whatever pieces a request comes."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.connection_clients import serving_connections
from support.connections import (
    CHUNKED,
    GET,
    SAYS_NO_MORE,
    FakeDoor,
    application,
    echoing,
    exchange,
    fed,
    sent,
)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer, in order."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def request(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in [*lines, b""])


@pytest.mark.parametrize("body", [b"", b"Content-Length: 2\r\n\r\nab", b"chunked"])
@pytest.mark.parametrize(
    "bad", [b"garbage\r\n\r\n", b"\x16\x03\x01\r\n\r\n", request(b"GET / HTTP/1.1")]
)
def test_a_due_answer_goes_before_the_refusal_of_what_follows(body: bytes, bad: bytes) -> None:
    good = sent(b"POST", b"ab") if body else GET
    if body == b"chunked":
        good = request(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked")
        good += b"2\r\nab\r\n0\r\n\r\n"
    assert statuses(exchange(good + bad)) == [204, 400]
    assert statuses(exchange(good, bad)) == [204, 400]
    assert statuses(exchange(good + good + bad)) == [204, 204, 400]


@pytest.mark.parametrize("bad", [b"zz\r\n", b"-5\r\nhello\r\n"])
def test_nothing_is_written_after_a_body_was_refused(bad: bytes) -> None:
    turns = 10

    async def answering_late(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for _ in range(turns + turns // 2):
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    refusal, *after = fed(CHUNKED, bad, app=answering_late, turns=turns)
    assert statuses(refusal) == [400]
    assert after == [SAYS_NO_MORE]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (request(b"GET / HTTP/1.1"), 400),
        (request(b"GET / HTTP/1.1", b"Host: a", b"Host: b"), 400),
        (request(b"GET / HTTP/1.1", b"host: a", b"HOST: a"), 400),
        (request(b"GET / HTTP/1.0"), 204),
        (request(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip, chunked"), 501),
        (
            request(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip")[:-2]
            + request(b"Transfer-Encoding: chunked"),
            501,
        ),
        (
            request(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: Chunked") + b"0\r\n\r\n",
            204,
        ),
        (request(b"GET / HTTP/2.0", b"Host: x"), 505),
        (request(b"GET / HTTP/3", b"Host: x"), 505),
        (request(b"PRI * HTTP/2.0") + b"SM\r\n\r\n", 505),
        (request(b"GET /", b"Host: x"), 400),
    ],
)
@pytest.mark.parametrize("cut", [0, 3, 14])
def test_a_head_that_http_forbids_is_refused_by_its_own_status(
    head: bytes, status: int, cut: int
) -> None:
    pieces = (head[:cut], head[cut:]) if cut else (head,)
    answer = exchange(*pieces)
    assert statuses(answer) == [status]
    if status != 204:
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert problem["status"] == status


@pytest.mark.parametrize("size", [65_536, 65_537, 250_000])
@pytest.mark.parametrize("where", ["field", "target"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_limit_of_a_head_is_exact(size: int, where: str, pieces: int) -> None:
    start, end = b"GET /", b" HTTP/1.1\r\nHost: x\r\n\r\n"
    if where == "field":
        start, end = b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"\r\n\r\n"
    head = start + b"a" * (size - len(start) - len(end)) + end
    step = -(-size // pieces)
    answer = exchange(*(head[at : at + step] for at in range(0, size, step)))
    assert statuses(answer) == [204 if size <= 65_536 else 431]


def test_the_wish_for_another_protocol_is_overheard_wherever_packets_end() -> None:
    head = request(
        b"POST / HTTP/1.1",
        b"X-Mark: upgrade: no",
        b"Host: x",
        b"Connection: Upgrade, HTTP2-Settings",
    )[:-2] + request(b"UpGrade: h2c", b"Content-Length: 4")
    stream = head + b"body" + GET
    for cut in range(1, len(stream)):
        answer = b"".join(fed(stream[:cut], stream[cut:], app=echoing))
        assert statuses(answer) == [200, 200], cut
        assert b"POSTbody" in answer
    one_by_one = [bytes([byte]) for byte in stream]
    assert statuses(b"".join(fed(*one_by_one, app=echoing))) == [200, 200]


def talk(app: Any, client: Callable[[socket.socket], Any]) -> Any:
    """Let a blocking client talk to a server that runs an application."""

    def connected(address: Any) -> Any:
        with socket.create_connection(address) as connection:
            connection.settimeout(20)
            return client(connection)

    return serving_connections(app, connected, FakeDoor())


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


async def slowly(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(0.3)
    await application(scope, receive, send)


@pytest.mark.parametrize("requests", [1, 3])
def test_who_closes_its_side_after_the_request_still_gets_the_answer(requests: int) -> None:
    def client(connection: socket.socket) -> bytes:
        connection.sendall(GET * requests)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    answered = statuses(talk(slowly, client))
    assert [status for status in answered if status != 100] == [204] * requests


def test_who_closes_its_side_within_a_request_gets_none() -> None:
    def client(connection: socket.socket) -> bytes:
        connection.sendall(sent(b"POST", b"abc")[:-1])
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)

    assert talk(slowly, client) == b""


def test_who_leaves_altogether_is_noticed_while_its_answer_is_made() -> None:
    noticed = threading.Event()

    async def waiting(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if (await receive())["type"] == "http.disconnect":
            noticed.set()

    def client(address: Any) -> bool:
        with socket.create_connection(address) as connection:
            connection.sendall(GET)
            time.sleep(0.1)
        return noticed.wait(20)

    assert serving_connections(waiting, client, FakeDoor())
