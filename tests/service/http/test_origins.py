"""Cross-origin requests, as browsers send them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.http.app import Application, create_app
from service.settings import Settings
from support.client import PNG, as_raw, problem, serving
from support.connections import fed
from support.engines import FakeEngine
from support.pictures import plain

PAGE = "https://example.org"
ORIGIN = {"Origin": PAGE}
ASKS = ORIGIN | {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key,content-type",
}
ALLOWED = "access-control-allow-origin"
EXPOSED = "X-Request-ID, Server-Timing, Retry-After"


def test_no_page_may_call_unless_origins_are_set() -> None:
    with serving() as client:
        assert ALLOWED not in client.post("/detect", content=plain(), headers=PNG | ORIGIN).headers
        assert problem(client.options("/detect", headers=ASKS), 405, "method-not-allowed")


@pytest.mark.parametrize(
    ("origins", "told"), [("*", "*"), (f"https://a.example,{PAGE.upper()}", PAGE)]
)
def test_answers_of_every_kind_say_that_a_page_may_read_them(origins: str, told: str) -> None:
    with serving(cors_origins=origins, api_key="secret") as client:
        key = {"X-API-Key": "secret"}
        answers = [
            client.post("/detect", content=plain(), headers=PNG | ORIGIN | key),
            client.post("/detect", content=plain(), headers=PNG | ORIGIN),
            client.post("/detect", content=b"text", headers=ORIGIN | key),
            client.get("/model", headers=ORIGIN | key),
            client.get("/health/ready", headers=ORIGIN),
            client.get("/nowhere", headers=ORIGIN),
            client.put("/detect", headers=ORIGIN),
        ]
        assert [answer.status_code for answer in answers] == [200, 401, 415, 200, 200, 404, 405]
        for answer in answers:
            assert answer.headers[ALLOWED] == told
            assert answer.headers["access-control-expose-headers"] == EXPOSED
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/detect", "/model"])
def test_a_browser_may_ask_before_without_a_key(path: str) -> None:
    with serving(cors_origins=PAGE, api_key="secret") as client:
        answer = client.options(path, headers=ASKS)
        assert answer.status_code == 200
        assert answer.headers[ALLOWED] == PAGE
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert answer.headers["access-control-allow-headers"] == "x-api-key,content-type"
        assert "x-request-id" in answer.headers
        counted = client.get("/metrics").text
    assert 'yolox_requests_total{endpoint="preflight",status="200"} 1.0' in counted


def test_pages_of_other_origins_are_told_so() -> None:
    other = {"Origin": "https://evil.example"}
    with serving(cors_origins=PAGE) as client:
        asked = client.options("/detect", headers=ASKS | other)
        assert "origin" in problem(asked, 403, "origin-refused")
        assert ALLOWED not in asked.headers
        answer = client.post("/detect", content=plain(), headers=PNG | other)
        assert ALLOWED not in answer.headers
        assert answer.headers["vary"] == "Origin"
        deleting = client.options("/detect", headers=ASKS | {"Access-Control-Request-Method": "X"})
        assert "method" in problem(deleting, 403, "origin-refused")


def test_an_answer_to_nobody_in_particular_tells_caches_that_origins_matter() -> None:
    with serving(cors_origins=PAGE) as client:
        assert client.get("/model").headers["vary"] == "Origin"


def test_options_that_no_browser_sends_are_no_preflight() -> None:
    with serving(cors_origins="*") as client:
        assert problem(client.options("/detect"), 405, "method-not-allowed")
        assert problem(client.options("/detect", headers=ORIGIN), 405, "method-not-allowed")


def app_of(**settings: Any) -> Application:
    return create_app(Settings(**settings), FakeEngine())


@pytest.mark.parametrize("origins", ["*", PAGE])
def test_a_refusal_at_the_head_of_a_request_can_be_read_by_the_page(origins: str) -> None:
    app = app_of(cors_origins=origins, api_key="secret")
    head = f"POST /detect HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nContent-Length: 90000\r\n"
    with TestClient(app):
        app.running.pipeline.refuse_new()
        for key, status in (("", 401), ("X-API-Key: secret\r\n", 503)):
            request = f"{head}{key}\r\n".encode() + b"x" * 90_000
            (answer, *_) = fed(request, app=app, refuses=app.refusing)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            assert f"access-control-allow-origin: {origins}\r\n".encode() in answer
            assert EXPOSED.lower().encode() in answer.lower()


def test_where_any_page_may_call_it_may_read_what_is_no_request_too() -> None:
    app = app_of(cors_origins="*")
    with TestClient(app):
        (answer, *_) = fed(b"\x16\x03\x01\r\n\r\n", app=app, rejects=app.rejecting)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"access-control-allow-origin: *" in answer


@pytest.mark.parametrize(
    "path", ["/detect", "/model", "/health/live", "/metrics", "/docs", "/", "/nowhere"]
)
def test_no_browser_takes_an_answer_for_something_else(path: str) -> None:
    with serving() as client:
        answer = client.get(path, follow_redirects=False)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert as_raw(client, plain()).headers["x-content-type-options"] == "nosniff"


def test_refusals_at_the_head_and_failing_middleware_forbid_sniffing_too() -> None:
    async def broken(_: Any, __: Any) -> Any:
        raise ZeroDivisionError

    app = app_of()
    with TestClient(app):
        app.running.pipeline.refuse_new()
        post = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        for sent, options in (
            (post, {"refuses": app.refusing}),
            (b"\x16\r\n", {"rejects": app.rejecting}),
        ):
            (answer, *_) = fed(sent, app=app, **options)
            assert answer.count(b"x-content-type-options: nosniff") == 1
    app = app_of()
    app.middleware("http")(broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/model").headers["x-content-type-options"] == "nosniff"
