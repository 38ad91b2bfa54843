"""The HTTP application: what it is made of, how it starts and stops."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Scope

from service import __version__
from service.build import load_first
from service.engine.base import Engine
from service.errors import ServiceError, StartupError
from service.http.access.clients import Clients
from service.http.access.keys import ApiKeys
from service.http.access.origins import Origins
from service.http.connection.crowd import Crowd
from service.http.detect import DetectRoute
from service.http.exchange import (
    DETECT,
    NO_SNIFFING,
    Exchange,
    KeyedRoute,
    is_detection,
    new_request_id,
)
from service.http.inference_protocol.pages import ProtocolPages
from service.http.inference_protocol.repository_pages import RepositoryPages
from service.http.inference_protocol.routes import inference_routes
from service.http.openapi.document import DESCRIPTION, LICENSE, SERVERS, TAGS, finish
from service.http.page.static import ABOUT
from service.http.pages import Pages
from service.http.problems import answer_error
from service.http.running import Running, assemble
from service.models.repository import ModelFile
from service.observe.metrics import Metrics
from service.queue.cpu_sharing import WorkerLoads
from service.settings import Settings

# Requests have ended by then; only an engine, or a decoder on its thread, that hangs keeps it busy.
STOP_TIMEOUT_S: Final = 5.0
READINESS_REPORT_S: Final = 1.0
SPANS_TIMEOUT_S: Final = 2.0

log = structlog.get_logger(__name__)


def create_app(
    settings: Settings | None = None,
    engine: Engine | None = None,
    metrics: Metrics | None = None,
    loads: WorkerLoads | None = None,
    keys: ApiKeys | None = None,
    file: ModelFile | None = None,
) -> "Application":
    """Build the application; it starts and stops with its lifespan.

    Args:
        settings: The settings; by default those of the environment.
        engine: The loaded engine; by default the one that the settings name is loaded
            now, which takes a second or more.
        metrics: Where to count; by default metrics of this process alone.
        loads: The load of every worker, if the server has several.
        keys: The API keys; by default those that the settings name.
        file: Where the engine's model lies, if it is from a file.

    Raises:
        StartupError: The engine cannot be loaded, or the file of the API keys not read.
    """
    settings = settings or Settings()
    metrics = Metrics() if metrics is None else metrics
    keys = ApiKeys.of(settings) if keys is None else keys
    if engine is None:
        file, engine = load_first(settings)
    return Application(assemble(settings, metrics, engine, loads, keys, file))


class Application(FastAPI):
    """FastAPI with the server's routes, in the one `Exchange` that answers every request.

    Args:
        running: The parts of the server that answer requests.

    Attributes:
        running: The same.
        crowd: The bounds that all connections share.
        exchange: Answers every request.
        hung: Whether the engine did not stop in time, so that its thread cannot be ended.
        beside: A context that lasts from the start to the end.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.hung = False
        self.crowd = Crowd(running.metrics, running.settings.max_connections)
        self.exchange = exchange_of(running)
        self.beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
        self._detect_route = DetectRoute(running)
        self._inference_routes = inference_routes(running)
        super().__init__(
            title="yolox-serve",
            summary="Object detection with YOLOX.",
            description=f"{DESCRIPTION}\n\n{ABOUT}",
            license_info=LICENSE,
            servers=SERVERS,
            openapi_tags=TAGS,
            version=__version__,
            lifespan=_lifespan,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            # OpenTelemetry's: it would look at every request whether somebody listens.
            telemetry={"tracing": False, "metrics": False, "logs": False},
            routes=[
                self._detect_route,
                *self._inference_routes,
                *Pages(running).routes(),
                *ProtocolPages(running).routes(),
                *RepositoryPages(running).routes(),
            ],
            # Errors go on to the exchange, which answers them all; but for those of middleware that
            # a user adds, which lies outside of it.
            exception_handlers={
                HTTPException: _raise,
                RequestValidationError: _raise,
                Exception: _answer_outside,
            },
        )
        self.add_middleware(self.exchange.around)
        self._own = len(self.user_middleware), len(self.exception_handlers)

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of this server, with its own limits."""
        if self.openapi_schema is None:
            running = self.running
            self.openapi_schema = finish(
                super().openapi(), running.settings, running.models.default.defaults
            )
        return self.openapi_schema

    def refusing(self, scope: Scope) -> ASGIApp | None:
        """An application that refuses this request, if no body could change that; else None.

        It waits for nothing, and answers as the whole application would, for which it stands in
        only while nobody has added middleware or error handlers.
        """
        if scope["method"] != "POST" or not is_detection(scope["path"]) or self._is_extended():
            return None
        refusal = self.running.pipeline.refusal()
        route = None if refusal is None else self._route(scope)
        return None if refusal is None or route is None else self.exchange.refusing(refusal, route)

    def rejecting(self, error: ServiceError) -> ASGIApp:
        """An application that answers bytes which are no HTTP request; it waits for nothing."""
        return self.exchange.refusing(error)

    def reload(self) -> None:
        """Read again what may change while the server runs: the models, and the API keys."""
        self.running.following.refresh_soon()
        keys = self.running.keys
        if keys.file is None:
            return
        try:
            keys.reload()
        except StartupError as error:
            log.error("the API keys stay as they were", reason=str(error))  # noqa: TRY400
        else:
            log.info("the API keys were read again", file=str(keys.file), keys=len(keys.valid))

    def _route(self, scope: Scope) -> KeyedRoute | None:
        """The route of a request that sends images."""
        if scope["path"] == DETECT:
            return self._detect_route
        routes = self._inference_routes
        return next((route for route in routes if route.matches(scope)[0] is Match.FULL), None)

    def _is_extended(self) -> bool:
        return (len(self.user_middleware), len(self.exception_handlers)) != self._own


def exchange_of(running: Running) -> Exchange:
    """The exchange that the settings ask for."""
    settings = running.settings
    origins = Origins(settings.cors_origins) if settings.cors_origins else None
    clients = Clients(settings.trusted_proxies) if settings.trusted_proxies else None
    return Exchange(running.metrics, clients, origins, running.tracing)


async def _raise(_: Request, error: Exception) -> Response:
    raise error


async def _answer_outside(request: Request, error: Exception) -> Response:
    request_id = new_request_id()
    log.error("middleware failed", request_id=request_id, exc_info=error)
    answer = answer_error(error, request_id, request.url.path)
    answer.headers["X-Request-ID"] = request_id
    answer.raw_headers.append(NO_SNIFFING)
    return answer


@asynccontextmanager
async def _lifespan(app: Application) -> AsyncIterator[None]:
    running = app.running
    await running.start()
    async with (
        _counted_as_serving(running),
        app.beside(),
    ):
        yield
    app.hung = not await _stopped(running)
    if running.settings.tracing:
        await _send_last_spans(running)


@asynccontextmanager
async def _counted_as_serving(running: Running) -> AsyncIterator[None]:
    metrics = running.metrics
    metrics.workers.set(1)
    metrics.workers_wanted.set(running.settings.workers)
    metrics.worker_starts.inc()
    report = asyncio.create_task(_report_readiness(running)) if metrics.shared else None
    yield
    if report is not None:
        report.cancel()


async def _report_readiness(running: Running) -> None:
    """Write it down for the other processes, which cannot ask this one when they are scraped."""
    while True:
        running.metrics.ready.set(float(running.health.unready_reason() is None))
        await asyncio.sleep(READINESS_REPORT_S)


async def _send_last_spans(running: Running) -> None:
    """Wait until the last spans are sent, but not long for a collector that does not answer."""
    sending = threading.Thread(target=running.tracing.stop, daemon=True)
    sending.start()
    await asyncio.to_thread(sending.join, SPANS_TIMEOUT_S)


async def _stopped(running: Running) -> bool:
    """Finish accepted work; False if an engine hangs, for nothing can end its thread."""
    try:
        async with asyncio.timeout(min(STOP_TIMEOUT_S, running.settings.shutdown_timeout_s)):
            await running.stop()
    except TimeoutError:
        log.error("the engine did not stop in time; what it was running is lost")  # noqa: TRY400
        return False
    return True
