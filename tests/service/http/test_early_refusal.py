"""Refusals as soon as a head is there, and what becomes of their bodies."""

import asyncio
import json
from typing import Any

import pytest

from service.http.connection.early_refusal import RefusingConnection
from support.client import serving
from support.connections import (
    EMPTY_POST,
    GET,
    HANGS_UP,
    POST,
    SAYS_NO_MORE,
    TRAP,
    either,
    exchange,
    fed,
    refuses_posts,
    refusing,
    refusing_all,
    sent,
)


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


def test_wherever_packets_end_requests_and_refused_bodies_do_not() -> None:
    chunked = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
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


def test_a_refused_body_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[bytes]()
    monkeypatch.setattr(RefusingConnection, "on_body", lambda _, body: parsed.append(body))
    answers = fed(POST + b"x" * 50_000, b"x" * 40_000 + GET, app=either, refuses=refuses_posts)
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 503", b"HTTP/1.1 200"]
    assert not parsed


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


@pytest.mark.parametrize("refuses", [None, refuses_posts])
def test_of_who_asks_before_sending_and_is_refused_nothing_more_is_read(refuses: Any) -> None:
    asks = POST.replace(b"Host", b"Expect: 100-continue\r\nHost")
    answer, *ends = fed(asks, app=refusing, refuses=refuses)
    assert answer.startswith(b"HTTP/1.1 503")
    assert ends == [SAYS_NO_MORE]
    # A client that has sent the body all the same has left no doubt, if it was read.
    ends = fed(asks + b"x" * 90_000, app=refusing, refuses=refuses)[1:]
    assert ends == ([] if refuses is None else [SAYS_NO_MORE, HANGS_UP])


def test_requests_in_a_pipeline_are_refused_in_their_turn() -> None:
    answer = exchange(GET + EMPTY_POST * 500 + GET, app=refusing, refuses=refuses_posts)
    assert answer.count(b"HTTP/1.1 503") == 500
    assert answer.startswith(b"HTTP/1.1 204")
    assert answer.count(b"HTTP/1.1 204") == 2


def test_only_one_of_many_that_come_together_is_refused_before_others_have_their_turn() -> None:
    pieces = EMPTY_POST * 300, EMPTY_POST
    answers = fed(*pieces, app=refusing, refuses=refuses_posts, turns=1000)
    tasks = [b"x-task: one" in answer for answer in answers]
    assert tasks == [False, *[True] * 299, False]


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


def test_the_application_says_what_it_refuses() -> None:
    with serving() as client:

        def refused(path: str) -> bool:
            scope = {"path": path, "method": "POST", "state": {}}
            return client.app.refusing(scope) is not None  # type: ignore[attr-defined]

        assert not refused("/detect")
        client.app.running.pipeline.refuse_new()  # type: ignore[attr-defined]
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
        client.app.running.pipeline.refuse_new()  # type: ignore[attr-defined]
        request = head + b"X-Request-ID: mine\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000
        (answer,) = fed(request, app=client.app, refuses=client.app.refusing)
        counted = client.get("/metrics").text
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-request-id: mine" in top
    assert json.loads(body)["type"] == f"urn:problem-type:yolox-serve:{slug}"
    assert f'yolox_rejections_total{{reason="{slug}"}} 1.0' in counted
    assert f'yolox_requests_total{{endpoint="/detect",status="{status}"}} 1.0' in counted


@pytest.mark.parametrize("version", [b"", b"/versions/1"])
def test_a_call_of_the_inference_protocol_is_refused_in_its_own_form(version: bytes) -> None:
    head = b"POST /v2/models/fake" + version + b"/infer HTTP/1.1\r\nHost: x\r\n"
    with serving(api_key="s3cret") as client:
        client.app.running.pipeline.refuse_new()  # type: ignore[attr-defined]
        request = head + b"X-API-Key: s3cret\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000
        (answer,) = fed(request, app=client.app, refuses=client.app.refusing)
        counted = client.get("/metrics").text
    assert answer.startswith(b"HTTP/1.1 503")
    assert answer.endswith(b'{"error":"the server is shutting down"}')
    path = "/v2/models/{name}" + version.decode().replace("1", "{version}") + "/infer"
    assert f'yolox_requests_total{{endpoint="{path}",status="503"}} 1.0' in counted
    assert 'yolox_rejections_total{reason="draining"} 1.0' in counted
