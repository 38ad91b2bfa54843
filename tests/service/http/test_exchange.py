"""One way for every request: middleware sees it, one place counts it, one place answers errors."""

import json
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient

from service.errors import DrainingError
from service.http.app import Application, create_app
from service.settings import Settings
from support.client import PNG, as_raw, boxes, metric, problem, serving
from support.connections import GET, fed
from support.engines import FakeEngine
from support.pictures import plain

TEXT = {"Content-Type": "text/plain"}
KEY = {"X-API-Key": "secret"}
ORIGIN = {"Origin": "https://example.org"}
ALLOWED = "access-control-allow-origin"
DETECT = b"POST /detect HTTP/1.1\r\nHost: x\r\nOrigin: https://example.org\r\n"
REFUSED = DETECT + b"Content-Length: 90000\r\n\r\n" + b"x" * 90_000


class Layer:
    """Middleware that remembers what it sees, and whether a task had begun."""

    def __init__(self, app: Any, seen: list[tuple[str, str, int]]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def watch(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._seen.append((scope["method"], scope["path"], message["status"]))
            await send(message)

        await self._app(scope, receive, watch)


def app_of(**settings: Any) -> Application:
    return create_app(Settings(**settings), FakeEngine())


def test_middleware_of_a_user_sees_every_request_and_every_answer() -> None:
    seen = list[tuple[str, str, int]]()
    app = app_of(api_key="secret")
    app.add_middleware(Layer, seen=seen)
    with TestClient(app) as client:
        assert boxes(client.post("/detect", content=plain(), headers=PNG | KEY))[0]
        client.post("/detect", content=plain(), headers=PNG)
        client.post("/detect", content=b"text", headers=KEY)
        client.post("/detect?iou=2", content=plain(), headers=PNG | KEY)
        client.get("/detect")
        client.get("/nowhere")
        client.get("/docs")
        app.running.pipeline.refuse_new()
        client.post("/detect", content=plain(), headers=PNG | KEY)
    statuses = [200, 401, 415, 422]
    assert seen == [
        *[("POST", "/detect", status) for status in statuses],
        ("GET", "/detect", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/docs", 200),
        ("POST", "/detect", 503),
    ]


def test_answers_and_errors_alike_carry_the_headers_that_middleware_adds() -> None:
    app = app_of(api_key="secret")
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    with TestClient(app) as client:
        for headers, status in ((PNG | KEY, 200), (PNG, 401), (TEXT | KEY, 415)):
            answer = client.post("/detect", content=plain(), headers=headers | ORIGIN)
            assert (answer.status_code, answer.headers[ALLOWED]) == (status, "*")
            assert {"x-request-id", "server-timing"} <= answer.headers.keys()


def test_an_early_refusal_goes_through_the_middleware_that_a_user_adds() -> None:
    seen = list[tuple[str, str, int]]()
    app = app_of()
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(Layer, seen=seen)
    with TestClient(app) as client:
        app.running.pipeline.refuse_new()
        (answer, *_) = fed(REFUSED, app=app, refuses=app.refusing, turns=100)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"access-control-allow-origin: *" in answer
        assert seen == [("POST", "/detect", 503)]
        assert metric(client, 'yolox_rejections_total{reason="draining"}') == 1


def test_an_early_refusal_is_left_to_an_error_handler_that_a_user_adds() -> None:
    async def teapot(_: Request, error: Exception) -> Response:
        return Response(str(error), status_code=418)

    app = app_of()
    app.add_exception_handler(DrainingError, teapot)
    with TestClient(app) as client:
        app.running.pipeline.refuse_new()
        (answer, *_) = fed(REFUSED, app=app, refuses=app.refusing, turns=100)
        assert answer.startswith(b"HTTP/1.1 418 ")
        assert as_raw(client, plain()).status_code == 418


def test_without_anything_added_a_refusal_comes_before_any_task() -> None:
    app = app_of()
    with TestClient(app):
        assert app.refusing({"path": "/detect", "method": "POST"}) is None
        app.running.pipeline.refuse_new()
        assert app.refusing({"path": "/detect", "method": "POST"}) is not None
        assert app.refusing({"path": "/model", "method": "GET"}) is None


def test_an_early_refusal_is_the_answer_that_the_whole_application_gives() -> None:
    app = app_of(api_key="secret")
    with TestClient(app) as client:
        app.running.pipeline.refuse_new()
        for key in (b"", b"X-API-Key: secret\r\n"):
            request = REFUSED.replace(b"Host: x\r\n", b"Host: x\r\nX-Request-ID: mine\r\n" + key)
            early, late = (fed(request, app=app, refuses=refuses, turns=100)[0] for refuses in (
                app.refusing, None
            ))  # fmt: skip
            assert without_time(early) == without_time(late)
        for status, slug in ((401, "unauthorized"), (503, "draining")):
            line = f'yolox_requests_total{{endpoint="/detect",status="{status}"}}'
            assert metric(client, line) == 2
            assert metric(client, f'yolox_rejections_total{{reason="{slug}"}}') == 2


def without_time(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\r\n") if not line.startswith(b"server-timing")]


def test_what_is_no_request_is_counted_and_answered_in_the_same_place() -> None:
    with serving() as client:
        rejecting = client.app.rejecting  # type: ignore[attr-defined]
        answer, *_ = fed(b"\x16\x03\x01\r\n\r\n", app=client.app, rejects=rejecting)
        assert answer.startswith(b"HTTP/1.1 400 ")
        top, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)["request_id"].encode() in top
        assert metric(client, 'yolox_requests_total{endpoint="unmatched",status="400"}') == 1


def test_a_bug_in_middleware_that_a_user_adds_is_a_problem_document() -> None:
    async def broken(_: Any, __: Any) -> Any:
        raise ZeroDivisionError("the password is swordfish")

    app = app_of()
    app.middleware("http")(broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert "swordfish" not in problem(as_raw(client, plain()), 500, "internal-error")


def test_an_error_after_the_answer_began_breaks_it_off_and_is_counted_by_its_status() -> None:
    app = app_of()

    @app.get("/broken")
    async def broken() -> Response:
        return Half(b"all")

    with TestClient(app, raise_server_exceptions=False) as client:
        (answer, *_) = fed(GET.replace(b"/", b"/broken", 1), app=app, turns=100)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.count(b"HTTP/1.1") == 1
        assert metric(client, 'yolox_requests_total{endpoint="/broken",status="200"}') == 1


class Half(Response):
    """Breaks off after its head."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        raise DrainingError("too late")


@pytest.mark.parametrize("path", ["/detect", "/model"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "bearer secret"}, 200),
        ({"X-API-Key": "wrong", "Authorization": "Bearer secret"}, 401),
        ({"X-API-Key": "", "Authorization": "Bearer secret"}, 200),
        ({"X-API-Key": "secret"}, 200),
    ],
)
def test_every_route_with_a_key_reads_it_in_the_same_way(
    path: str, headers: dict[str, str], status: int
) -> None:
    with serving(api_key="secret") as client:
        if path == "/detect":
            answer = client.post(path, content=plain(), headers=PNG | headers)
        else:
            answer = client.get(path, headers=headers)
        assert answer.status_code == status


def test_an_application_that_is_mounted_under_a_path_asks_for_the_key_too() -> None:
    outer = FastAPI()
    outer.mount("/yolo", app_of(api_key="secret"))
    with TestClient(outer) as client:
        assert client.post("/yolo/detect", content=plain(), headers=PNG).status_code == 401
        assert client.get("/yolo/model").status_code == 401
        assert client.get("/yolo/model", headers=KEY).status_code == 200
