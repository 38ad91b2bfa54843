"""The common part of all requests: an id, a clock, a count, a log line, the key, error answers.

`Exchange` is the layer between the middleware that a user adds and the routes. A route only
returns a response or raises.
"""

import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any, Final

import structlog
from fastapi import Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.http.access.clients import Clients
from service.http.access.keys import ApiKeys
from service.http.access.note import NOTE, Note
from service.http.access.origins import PREFLIGHT, Origins
from service.http.problems import EXPECTED_ERRORS, PROTOCOL, answer_error, as_service_error
from service.observe.metrics import Metrics
from service.observe.tracing.trace import (
    CURRENT,
    TRACEPARENT,
    Attributes,
    Carrying,
    Trace,
    Tracing,
    exemplar,
)
from service.settings import UNIX_PEER

DETECT: Final = "/detect"
MODELS: Final = f"{PROTOCOL}/models/"
INFER: Final = "/infer"
QUIET_ENDPOINTS: Final = frozenset(
    {
        *("/metrics", "/health/live", "/health/ready"),
        *(f"{PROTOCOL}/health/live", f"{PROTOCOL}/health/ready"),
    }
)
SERVER_ERRORS: Final = 500
SAFE_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
# The documentation shows that either header will do; `KeyedRoute` reads them.
KEY_HEADERS: Final = (
    Security(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Security(HTTPBearer(auto_error=False)),
)

# Browsers must not take an answer for a page or a script that it does not say it is.
NO_SNIFFING: Final = (b"x-content-type-options", b"nosniff")

Headers = Sequence[tuple[bytes, bytes]]

log = structlog.get_logger("service.access")


class Exchange:
    """Answers every request, whether a route does it or a refusal comes before any route.

    Middleware that a user adds lies outside: it sees each request first, and each answer last. An
    answer that such middleware gives by itself is not counted.

    Args:
        metrics: Where to count.
        clients: Tells the addresses of clients behind proxies, if any proxy is trusted.
        origins: The origins whose pages may call the server, if any may.
        tracing: Finds the trace that a request belongs to.
    """

    def __init__(
        self,
        metrics: Metrics,
        clients: Clients | None = None,
        origins: Origins | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing or Carrying()
        self._clients = clients
        self._origins = origins

    def around(self, app: ASGIApp) -> ASGIApp:
        """An ASGI layer that has `app` answer HTTP requests by way of `answer`."""

        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self.answer(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return layer

    async def answer(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have one request handled; count it, and answer in the place of a handler that raises."""
        request_id, started = request_id_of(scope["headers"]), time.perf_counter()
        trace = self._begin_trace(scope["headers"])
        before = None if trace is None else CURRENT.set(trace)
        note: Note = {"bytes": 0}
        scope[NOTE] = note
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                seconds = time.perf_counter() - started
                message["headers"] = _marked(message.get("headers", ()), request_id, seconds)
                if trace is not None:
                    message["headers"].append((TRACEPARENT, trace.traceparent.encode()))
            await send(message)

        reply: Send = send_marked
        if self._origins is not None:
            handle, reply = self._origins.around(handle, scope, send_marked)
        in_flight = int(is_detection(scope["path"]))
        self._metrics.requests_in_flight.inc(in_flight)
        try:
            await handle(scope, receive, reply)
        except Exception as error:
            note["problem"] = as_service_error(error).slug
            if status or not isinstance(error, EXPECTED_ERRORS):
                log.exception("unexpected error", request_id=request_id)
            if not status:
                await answer_error(error, request_id, scope["path"])(scope, receive, reply)
        finally:
            self._metrics.requests_in_flight.dec(in_flight)
            seconds, endpoint = time.perf_counter() - started, _endpoint(scope)
            self._count(scope, endpoint, status or 500, seconds)
            self._log(scope, endpoint, status or 500, seconds, request_id)
            if trace is not None:
                _end(trace, scope, endpoint, status or 500)
            if before is not None:
                CURRENT.reset(before)

    def refusing(self, error: ServiceError, route: "KeyedRoute | None" = None) -> ASGIApp:
        """An application that answers a request with an error without handling it.

        Args:
            error: Why it is refused.
            route: The route that it would have had; it asks for the key first.
        """

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            if route is None:
                raise error
            scope["route"] = route  # as the framework's router does
            await route.handle(scope, receive, send, refusal=error)

        return partial(self.answer, refuse)

    def _begin_trace(self, headers: Headers) -> Trace | None:
        """The trace of a request; no time goes into one that has none."""
        has_trace = self._tracing.traces_all or TRACEPARENT in dict(headers)
        return self._tracing.begin(headers) if has_trace else None

    def _count(self, scope: Scope, endpoint: str, status: int, seconds: float) -> None:
        self._metrics.requests.labels(endpoint, str(status)).inc()
        example = None if CURRENT.get() is None else exemplar()
        self._metrics.request_duration.labels(endpoint).observe(seconds, example)
        problem = scope[NOTE].get("problem")
        if problem is not None and scope["method"] == "POST" and is_detection(endpoint):
            self._metrics.rejections.labels(problem).inc()

    def _log(
        self, scope: Scope, endpoint: str, status: int, seconds: float, request_id: str
    ) -> None:
        write = log.debug if endpoint in QUIET_ENDPOINTS else log.info
        write(
            "request",
            method=scope["method"],
            endpoint=endpoint,
            status=status,
            ms=round(seconds * 1000, 1),
            client=_peer(scope) if self._clients is None else self._clients.address(scope),
            **scope[NOTE],
            request_id=request_id,
        )


class ReadRoute(APIRoute):
    """A route that answers HEAD wherever it answers GET; the connection leaves the body out."""

    @cached_property
    def allowed(self) -> list[str]:
        """The methods that it answers."""
        methods = self.methods or set()
        return sorted(methods | {"HEAD"} if "GET" in methods else methods)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether a request is for this route."""
        match, child = super().matches(scope)
        is_head = match is Match.PARTIAL and scope["method"] in self.allowed
        return Match.FULL if is_head else match, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of this path."""
        if scope["method"] not in self.allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(self.allowed)})
        if scope["method"] not in (self.methods or ()):
            scope = {**scope, "method": "GET"}
        await super().handle(scope, receive, send)


class KeyedRoute(ReadRoute):
    """A route that asks for the API key, if one is configured, before it does anything else.

    Args:
        path: Its path.
        endpoint: The function that answers.
        keys: The keys.
        facts: Facts to note about each request, for the log.
        options: FastAPI's.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        keys: ApiKeys,
        facts: Note | None = None,
        **options: Any,  # noqa: ANN401 - FastAPI's
    ) -> None:
        super().__init__(path, endpoint, dependencies=KEY_HEADERS, **options)
        self._keys = keys
        self._facts = facts or {}

    async def handle(
        self, scope: Scope, receive: Receive, send: Send, refusal: ServiceError | None = None
    ) -> None:
        """Answer a request of this path; a wrong method is told to everybody.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
            refusal: Raised in the place of an answer, to those who have the key.

        Raises:
            UnauthorizedError: The key is missing or wrong.
        """
        scope[NOTE].update(self._facts)
        if scope["method"] not in self.allowed:
            await super().handle(scope, receive, send)
            return
        if self._keys.valid:
            self._keys.check(scope["headers"])
        if refusal is not None:
            raise refusal
        await self.answer(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may be answered, as FastAPI does."""
        await super().handle(scope, receive, send)


def is_detection(path: str) -> bool:
    """Whether a request of this path, or of a route with it, sends images to be looked at."""
    return path == DETECT or (path.startswith(MODELS) and path.endswith(INFER))


def new_request_id() -> str:
    """An id that no other request has."""
    # To ask the system for random bytes that nobody can guess would give up the GIL.
    return f"{random.getrandbits(128):032x}"


def _end(trace: Trace, scope: Scope, endpoint: str, status: int) -> None:
    """Note in a request's trace how it was answered, by OpenTelemetry's names for HTTP."""
    facts = dict[str, int | str](scope[NOTE])
    attributes: Attributes = {
        "http.request.method": scope["method"],
        "http.route": endpoint,
        "http.response.status_code": status,
        "http.request.body.size": facts.pop("bytes"),
    }
    if "problem" in facts:
        attributes["error.type"] = facts.pop("problem")
    attributes |= {f"yolox.{name}": value for name, value in facts.items()}
    trace.end(f"{scope['method']} {endpoint}", attributes, failed=status >= SERVER_ERRORS)


def _endpoint(scope: Scope) -> str:
    """The route's own path: a bounded set, whatever clients ask for."""
    if PREFLIGHT in scope:
        return PREFLIGHT
    if "route" in scope:
        return str(scope["route"].path)
    # The pages of documentation are plain routes, each of one path.
    return str(scope["path"]) if "endpoint" in scope else "unmatched"


def _peer(scope: Scope) -> str:
    """The address at the other end of the connection."""
    peer: tuple[str, int] | None = scope.get("client")
    return peer[0] if peer else UNIX_PEER


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's id, if it is harmless, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and SAFE_REQUEST_ID.fullmatch(value):
            return value.decode()
    return new_request_id()


def _marked(headers: Headers, request_id: str, seconds: float) -> list[tuple[bytes, bytes]]:
    """An answer's headers with the request's id, and the total time behind that of any stages."""
    others = [field for field in headers if field[0] != b"server-timing"]
    stages = [value for name, value in headers if name == b"server-timing"]
    timing = b", ".join([*stages, f"total;dur={seconds * 1000:.2f}".encode()])
    own = (b"x-request-id", request_id.encode()), (b"server-timing", timing), NO_SNIFFING
    return [*others, *own]
