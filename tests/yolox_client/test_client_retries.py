"""Repetitions of a request, its deadline and its errors, against answers that are made up."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

import yolox_client
from yolox_client import AsyncClient, Client, ImageResult, RetryPolicy
from yolox_client.transport.retry import Attempts, retry_after_s

QUICK = RetryPolicy(max_tries=3, first_pause_s=0.001, longest_pause_s=0.002)
MODEL = {"name": "m", "version": "1", "provider": "CPUExecutionProvider"}
CAT = {
    "box": {"x1": 1, "y1": 2, "x2": 11, "y2": 22},
    "score": 0.9,
    "objectness": 0.95,
    "class_score": 0.99,
    "class_id": 0,
    "class_name": "cat",
}
Answer = httpx2.Response | Exception


def good(*errors: int) -> httpx2.Response:
    """An answer with an image for each argument: 0 for a good one, else the status of its error."""
    results = [
        {"filename": None, "width": None, "height": None, "detections": []}
        | {"error": {"status": status, "title": "t", "detail": "d"}}
        if status
        else {"filename": None, "width": 20, "height": 30, "detections": [CAT], "error": None}
        for status in errors
    ]
    return httpx2.Response(200, json={"model": MODEL, "results": results, "timing_ms": {}})


def problem(status: int, slug: str = "queue-full", **headers: str) -> httpx2.Response:
    document = {
        "type": f"urn:problem-type:yolox-serve:{slug}",
        "title": "a title",
        "status": status,
        "detail": "a detail",
        "request_id": "r1",
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, content=json.dumps(document), headers=named)


class Script:
    """A server that gives these answers in turn, and then the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


def blocking(script: Callable[..., Any], images: Any, timeout_s: float = 5.0) -> Any:
    transport = httpx2.MockTransport(script)
    with Client("http://x", retry=QUICK, timeout_s=timeout_s, transport=transport) as client:
        return client.detect(images)


def awaiting(script: Callable[..., Any], images: Any, timeout_s: float = 5.0) -> Any:
    async def main() -> Any:
        transport = httpx2.MockTransport(script)
        client = AsyncClient("http://x", retry=QUICK, timeout_s=timeout_s, transport=transport)
        async with client:
            return await client.detect(images)

    return asyncio.run(main())


both = pytest.mark.parametrize("detect", [blocking, awaiting])


@both
def test_a_busy_server_is_asked_again(detect: Any) -> None:
    script = Script(problem(503, Retry_After="0"), httpx2.ConnectError("refused"), good(0))
    result = detect(script, b"image")
    assert [found.class_name for found in result.detections] == ["cat"]
    assert result.detections[0].box == (1, 2, 11, 22)
    assert [request.content for request in script.requests] == [b"image"] * 3


@both
def test_a_server_that_says_when_is_waited_for(detect: Any) -> None:
    began = time.monotonic()
    detect(Script(problem(503, Retry_After="1"), good(0)), b"image")
    assert time.monotonic() - began >= 1


@both
def test_nobody_waits_beyond_the_deadline(detect: Any) -> None:
    script = Script(problem(503, Retry_After="60"))
    began = time.monotonic()
    with pytest.raises(yolox_client.BusyError) as raised:
        detect(script, b"image")
    assert time.monotonic() - began < 2
    assert (raised.value.slug, raised.value.retry_after_s) == ("queue-full", 60)
    assert raised.value.request_id == "r1"
    assert len(script.requests) == 1


@both
@pytest.mark.parametrize(
    ("status", "slug", "kind"),
    [
        (400, "malformed-request", yolox_client.MalformedRequestError),
        (401, "unauthorized", yolox_client.UnauthorizedError),
        (413, "too-large", yolox_client.TooLargeError),
        (415, "unsupported-type", yolox_client.UnsupportedTypeError),
        (422, "invalid-option", yolox_client.InvalidOptionError),
        (422, "invalid-image", yolox_client.InvalidImageError),
        (504, "deadline-passed", yolox_client.DeadlineError),
        (404, "not-found", yolox_client.ProblemError),
    ],
)
def test_each_problem_is_an_error_of_its_own(
    detect: Any, status: int, slug: str, kind: type[Exception]
) -> None:
    script = Script(problem(status, slug))
    with pytest.raises(kind, match="a detail"):
        detect(script, b"image")
    assert len(script.requests) == 1


@both
def test_a_server_that_cannot_be_reached_is_tried_a_few_times(detect: Any) -> None:
    script = Script(httpx2.ConnectError("refused"))
    with pytest.raises(yolox_client.ServerUnreachableError, match=r"http://x.*refused"):
        detect(script, b"image")
    assert len(script.requests) == QUICK.max_tries


@both
def test_another_server_is_recognised(detect: Any) -> None:
    with pytest.raises(yolox_client.UnexpectedAnswerError, match="not answer as this service"):
        detect(Script(httpx2.Response(200, content=b"<html>")), b"image")
    with pytest.raises(yolox_client.ProblemError, match="403"):
        detect(Script(httpx2.Response(403, content=b"<html>")), b"image")


@both
def test_only_the_images_that_were_refused_are_sent_again(detect: Any) -> None:
    script = Script(good(0, 503, 422), good(0))
    results = detect(script, [b"first", b"second", b"third"])
    assert [result.error is None for result in results] == [True, True, False]
    assert isinstance(results[2].error, yolox_client.InvalidImageError)
    assert [b"first" in request.content for request in script.requests] == [True, False]
    assert script.requests[1].content == b"second"


@both
def test_each_of_several_bad_images_gets_its_own_reason(detect: Any) -> None:
    script = Script(
        problem(422, "invalid-image"),
        problem(415, "unsupported-type"),
        problem(422, "invalid-image"),
    )
    results = detect(script, [b"first", b"second"])
    kinds = [type(result.error) for result in results]
    assert kinds == [yolox_client.UnsupportedTypeError, yolox_client.InvalidImageError]


@both
def test_a_wrong_key_ends_a_list(detect: Any) -> None:
    with pytest.raises(yolox_client.UnauthorizedError):
        detect(Script(problem(401, "unauthorized")), [b"a"] * 50)


def late(request: httpx2.Request) -> httpx2.Response:
    time.sleep(0.05)
    raise httpx2.ReadTimeout("too slow")


@both
def test_the_end_of_the_time_has_a_name(detect: Any) -> None:
    with pytest.raises(yolox_client.ClientDeadlineError):
        detect(late, b"image", timeout_s=0.02)


class Dripping(httpx2.SyncByteStream):
    """An answer that never ends."""

    def __iter__(self) -> Any:
        while True:
            time.sleep(0.01)
            yield b" "


def test_an_answer_that_drips_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(yolox_client.ClientDeadlineError):
        blocking(lambda request: httpx2.Response(200, stream=Dripping()), b"image", timeout_s=0.1)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "", "http://", "http://x:port"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        Client(url)


def pauses(policy: RetryPolicy, waits: Sequence[float | None], timeout_s: float = 100) -> list[Any]:
    attempts = Attempts(policy, timeout_s, clock=lambda: 0.0, chance=lambda: 1.0)
    return [attempts.pause_s(wait) for wait in waits]


def test_pauses_double_up_to_a_limit_and_then_end() -> None:
    policy = RetryPolicy(max_tries=5, first_pause_s=1, longest_pause_s=3, jitter=0)
    assert pauses(policy, [None] * 5) == [1, 2, 3, 3, None]


def test_pauses_are_longer_at_random_and_never_shorter_than_asked() -> None:
    assert pauses(RetryPolicy(jitter=0.5), [4.0]) == [6.0]
    assert pauses(RetryPolicy(first_pause_s=0.2, jitter=0), [0.0]) == [0.2]


def test_answers_with_retry_after_do_not_count_as_failures() -> None:
    policy = RetryPolicy(max_tries=2, jitter=0)
    assert pauses(policy, [1.0] * 20) == [1.0] * 20
    assert pauses(policy, [101.0]) == [None]


@pytest.mark.parametrize(
    ("text", "seconds"), [("3", 3.0), ("", None), ("soon", None), ("-1", None), ("1.5", None)]
)
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    assert retry_after_s({"Retry-After": text}) == seconds


def test_retry_after_as_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=30)
    asked = retry_after_s({"Retry-After": format_datetime(then, usegmt=True)})
    assert asked == pytest.approx(30, abs=3)
    assert retry_after_s({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_a_result_with_an_error_converts_to_nothing() -> None:
    result = ImageResult("a.jpg", 0, 0, error=yolox_client.UnusableImageError("no such file"))
    for convert in (result.to_coco, result.to_yolo, result.to_supervision):
        with pytest.raises(yolox_client.UnusableImageError):
            convert()


@both
@pytest.mark.parametrize("status", [302, 400, 404, 405, 500, 501])
@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"detail": "Not Found"}'])
def test_the_answer_of_another_server_is_unexpected(
    detect: Any, status: int, content: bytes
) -> None:
    with pytest.raises(yolox_client.UnexpectedAnswerError, match=f"status {status}, is not"):
        detect(Script(httpx2.Response(status, content=content)), b"image")


@both
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, yolox_client.UnauthorizedError),
        (413, yolox_client.TooLargeError),
        (502, yolox_client.ProblemError),
        (503, yolox_client.BusyError),
        (504, yolox_client.DeadlineError),
    ],
)
def test_the_page_of_a_proxy_is_a_problem(detect: Any, status: int, kind: type) -> None:
    with pytest.raises(kind, match="<html>"):
        detect(Script(httpx2.Response(status, content=b"<html>")), b"image")
