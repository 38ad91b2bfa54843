"""Bounds that the connections of a server share: their number, turns, and unread answers."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import Response

from service.errors import UnreadAnswersError
from service.http.bounds import SLICE_BYTES, AnswerMemory
from service.http.connection import crowd as crowd_module
from service.http.connection.crowd import Crowd
from service.observe.metrics import Metrics
from support.connection_clients import serving_connections
from support.connections import GET, POST, FakeDoor, application


def opened(address: Any, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address)
    connection.settimeout(20)
    connection.sendall(sent)
    return connection


def heard(connection: socket.socket, until: bytes) -> bytes:
    answer = b""
    while until not in answer and (part := connection.recv(65536)):
        answer += part
    return answer


def test_a_connection_beyond_the_limit_is_told_so_and_counted() -> None:
    def client(address: Any) -> None:
        with ExitStack() as stack:
            busy = [stack.enter_context(opened(address, POST[:20])) for _ in range(3)]
            for connection in busy:
                connection.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            answer = heard(stack.enter_context(opened(address, GET)), b"}")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"too-many-connections" in answer
        assert b"retry-after: 1" in answer

    door = FakeDoor(max_connections=3)
    serving_connections(application, client, door)
    assert 'connections_dropped_total{reason="too-many"} 1.0' in door.counts()


def test_an_idle_connection_makes_room_for_a_new_one() -> None:
    def client(address: Any) -> None:
        with opened(address, GET) as idle, opened(address, POST[:20]):
            assert heard(idle, b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")
            with opened(address, GET) as new:
                assert heard(new, b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")
            assert idle.recv(1) == b""

    serving_connections(application, client, FakeDoor(max_connections=2))


def test_connections_that_end_are_counted_out() -> None:
    door = FakeDoor()

    def client(address: Any) -> None:
        for _ in range(3):
            with opened(address, GET) as connection:
                heard(connection, b"\r\n\r\n")

    serving_connections(application, client, door)
    assert "yolox_connections 0.0" in door.counts()


def test_refused_clients_ask_again_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(crowd_module.time, "monotonic", lambda: now)
    crowd = Crowd(Metrics(), 10_000)
    rests = [crowd.rest_s() for _ in range(3000)]
    assert rests[:10] == [0.0] * 10
    assert rests == sorted(rests)
    assert rests[500] == pytest.approx(500 / crowd_module.REFUSALS_PER_S, abs=0.01)
    assert max(rests) == crowd_module.MAX_REST_S
    now += 3
    assert crowd.rest_s() == 0.0


def test_drops_are_logged_once_a_second_with_their_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, logged = 100.0, []
    monkeypatch.setattr(crowd_module.time, "monotonic", lambda: now)
    monkeypatch.setattr(crowd_module.log, "warning", lambda _, **line: logged.append(line))
    crowd = Crowd(Metrics(), 10)
    for _ in range(50):
        crowd.dropped("no-request", ("192.0.2.1", 5))
    now += 1.5
    crowd.dropped("slow-request", None)
    assert [(line["count"], line["client"]) for line in logged] == [(1, "192.0.2.1"), (50, None)]


def test_long_answers_are_sent_in_slices_from_a_bounded_memory() -> None:
    body = bytes(range(256)) * 1024
    memory, go_on = AnswerMemory(len(body)), asyncio.Event()

    async def send_slowly(message: Any) -> None:
        sent.append(message)
        await go_on.wait()

    async def main() -> None:
        scope = {"type": "http"}
        slow = asyncio.create_task(memory.send(Response(body), scope, never, send_slowly))
        await asyncio.sleep(0)
        with pytest.raises(UnreadAnswersError):
            await memory.send(Response(body), scope, never, send_slowly)
        assert len(sent) == 1
        go_on.set()
        await slow
        await memory.send(Response(body), scope, never, send_slowly)

    async def never() -> Any:
        raise AssertionError

    sent: list[Any] = []
    asyncio.run(main())
    parts = [message["body"] for message in sent[1 : len(sent) // 2]]
    assert b"".join(parts) == body
    assert {len(part) for part in parts} == {SLICE_BYTES}
    assert [message["more_body"] for message in sent[-2:]] == [True, False]


def test_a_single_answer_may_be_longer_than_the_memory() -> None:
    async def main() -> None:
        await AnswerMemory(1).send(Response(b"x" * 200_000), {"type": "http"}, take, take)

    async def take(_: Any = None) -> Any:
        return None

    asyncio.run(main())
