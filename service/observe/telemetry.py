"""Around every request: an id, a clock, a count, a log line, and an answer even to a bug."""

import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.observe.metrics import Metrics

BugHandler = Callable[[Request, Exception], Response]

SAFE_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

log = structlog.get_logger("service.access")


class Telemetry:
    """ASGI middleware; leaves `request_id` and an empty `stages` in the request's state.

    A handler may fill `stages` with milliseconds by name; they become the Server-Timing header,
    with the total of the whole request in the place of its own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, on_bug: BugHandler) -> None:
        self._app = app
        self._metrics = metrics
        self._on_bug = on_bug

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = _request_id(scope["headers"])
        state.update(request_id=request_id, stages={})
        started = time.perf_counter()
        status, answered = 500, False
        in_flight = int(scope["path"] == "/detect")
        self._metrics.requests_in_flight.inc(in_flight)

        async def send_with_headers(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                total = (time.perf_counter() - started) * 1000
                timing = _server_timing({**state["stages"], "total": total})
                ours = ((b"x-request-id", request_id.encode()), (b"server-timing", timing.encode()))
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            log.exception("unexpected error", request_id=request_id)
            if not answered:
                response = self._on_bug(Request(scope), error)
                await response(scope, receive, send_with_headers)
        finally:
            self._metrics.requests_in_flight.dec(in_flight)
            self._record(scope, status, time.perf_counter() - started, request_id)

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        endpoint = _endpoint(scope)
        self._metrics.requests.labels(endpoint, str(status)).inc()
        self._metrics.request_duration.labels(endpoint).observe(seconds)
        write = log.debug if endpoint in ("/metrics", "/health/live", "/health/ready") else log.info
        write(
            "request",
            method=scope["method"],
            endpoint=endpoint,
            status=status,
            ms=round(seconds * 1000, 1),
            request_id=request_id,
        )


def _endpoint(scope: Scope) -> str:
    """The route's own path: a bounded set, whatever clients ask for."""
    if "route" in scope:
        return str(scope["route"].path)
    # The pages of documentation are plain routes, each of one path.
    return str(scope["path"]) if "endpoint" in scope else "unmatched"


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's, if it is harmless, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and SAFE_REQUEST_ID.fullmatch(value):
            return value.decode()
    # Unique is enough; asking the system for bytes that nobody can guess gives up the GIL.
    return f"{random.getrandbits(128):032x}"


def _server_timing(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{name};dur={value:.2f}" for name, value in milliseconds.items())
