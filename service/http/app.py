"""The HTTP application: its life cycle, and the one place where errors become answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__
from service.build import default_options, load_engine, make_detector, warming_the_rest
from service.engine.base import Engine
from service.errors import (
    ClientLeftError,
    InvalidOptionError,
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServiceError,
    UnauthorizedError,
)
from service.http.bodies import BodyMemory, describe_errors
from service.http.protocol import REFUSES, Refuses
from service.http.routes import Running, check_key_of, detection, router
from service.http.schemas import EngineInfo, ModelRef, Problem
from service.observe.gpus import watch_gpus
from service.observe.metrics import Metrics
from service.observe.telemetry import Telemetry
from service.queue.cpu_sharing import WorkerLoads
from service.settings import Settings

# Requests have ended by then; only an engine, or a decoder on its thread, that hangs keeps it busy.
STOP_TIMEOUT_S: Final = 5.0
READINESS_REPORT_S: Final = 1.0

log = structlog.get_logger(__name__)

EXPECTED_ERRORS: Final = (ServiceError, RequestValidationError, HTTPException, ClientDisconnect)
HTTP_ERRORS: Final = {404: NotFoundError, 405: MethodNotAllowedError}


def create_app(
    settings: Settings | None = None,
    engine: Engine | None = None,
    metrics: Metrics | None = None,
    loads: WorkerLoads | None = None,
) -> FastAPI:
    """Build the application; it starts and stops with its lifespan.

    Args:
        settings: The settings; by default those of the environment.
        engine: What runs the model; by default the one that the settings name is loaded at start.
        metrics: Where to count; by default metrics of this process alone.
        loads: The processes of the server, if it has several.
    """
    settings = settings or Settings()
    counted = Metrics() if metrics is None else metrics

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Refuses]]:
        loaded = engine
        if loaded is None:
            loaded = await asyncio.to_thread(load_engine, settings)
        app.state.running = running = _assemble(settings, counted, loaded, loads)
        await running.detector.start()
        async with _counted_as_serving(running), warming_the_rest(settings, loaded):
            yield {REFUSES: _refuses(app, running)}
        await _stop(app, running)

    app = Application(
        counted,
        title="yolox-serve",
        summary="Object detection with YOLOX.",
        version=__version__,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        # OpenTelemetry's: to look, at every request, whether somebody wants it takes its time.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        # A request tries them in this order, and all of an included router twice.
        routes=[*detection.routes, *router.routes],
    )
    app.state.hung = False
    app.add_middleware(Telemetry, metrics=counted, on_bug=answer_error)
    for kind in EXPECTED_ERRORS:
        app.add_exception_handler(kind, _answer_expected_error)
    return app


class Application(FastAPI):
    """FastAPI's, but for what is asked most: detection goes round its layers, to the same route.

    Without them a crowd on two CPUs gets 2 to 3 % more answers of YOLOX-nano.

    Args:
        metrics: Where to count.
        options: FastAPI's.
    """

    def __init__(self, metrics: Metrics, **options: Any) -> None:  # noqa: ANN401 - FastAPI's
        super().__init__(**options)
        (self._detection,) = detection.routes
        self._counted = Telemetry(self._detect, metrics, answer_error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or begin and end the application's life."""
        if is_detection(scope):
            await self._counted(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _detect(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(app=self, route=self._detection)
        try:
            await self._detection.handle(scope, receive, send)
        except EXPECTED_ERRORS as error:
            await answer_error(Request(scope), error)(scope, receive, send)


def is_detection(scope: Scope) -> bool:
    """Whether an ASGI scope is that of `POST /detect`."""
    return (scope.get("path"), scope.get("method")) == ("/detect", "POST")


@asynccontextmanager
async def _counted_as_serving(running: Running) -> AsyncIterator[None]:
    metrics = running.metrics
    metrics.workers.set(1)
    metrics.worker_starts.inc()
    report = asyncio.create_task(_report_readiness(running)) if metrics.shared else None
    yield
    if report is not None:
        report.cancel()


async def _report_readiness(running: Running) -> None:
    """Write it down for the other processes, who cannot ask this one when they are scraped."""
    while True:
        running.metrics.ready.set(float(running.detector.unready_reason() is None))
        await asyncio.sleep(READINESS_REPORT_S)


async def _stop(app: FastAPI, running: Running) -> None:
    """Finish accepted work, unless an engine hangs; then say so, for nothing can end its thread."""
    try:
        async with asyncio.timeout(min(STOP_TIMEOUT_S, running.settings.shutdown_timeout_s)):
            await running.detector.stop()
    except TimeoutError:
        app.state.hung = True
        log.error("the engine did not stop in time; what it was running is lost")  # noqa: TRY400


def _assemble(
    settings: Settings, metrics: Metrics, engine: Engine, loads: WorkerLoads | None
) -> Running:
    detector = make_detector(settings, engine, metrics, loads)
    contract = engine.contract
    model = ModelRef(name=contract.name, version=contract.version, provider=engine.provider)
    metrics.model_info.labels(contract.name, contract.version, engine.provider).set(1)
    metrics.engine_info.labels(engine.provider, engine.precision, str(engine.threads)).set(1)
    metrics.provider_mismatch.set(engine.provider != engine.wanted_provider)
    if not engine.on_cpu:
        watch_gpus(metrics.registry)
    if not metrics.shared:
        metrics.ready.set_function(lambda: float(detector.unready_reason() is None))
    return Running(
        settings,
        metrics,
        detector,
        default_options(settings, contract),
        BodyMemory(settings.max_buffered_bytes),
        model,
        EngineInfo(provider=engine.provider, precision=engine.precision, threads=engine.threads),
    )


def _refuses(app: FastAPI, running: Running) -> Refuses:
    """For requests that would be refused whatever their bodies hold, a short way to say so.

    In a crowd nearly all are; nothing on this way waits.
    """
    (route,) = detection.routes

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        scope.update(app=app, route=route)
        request, error = Request(scope), scope["state"]["refusal"]
        try:
            await check_key_of(request, running)
        except UnauthorizedError as unknown:
            error = unknown
        await answer_error(request, error)(scope, receive, send)

    counted = Telemetry(refuse, running.metrics, answer_error)

    def refuses(scope: Scope) -> ASGIApp | None:
        if not is_detection(scope):
            return None
        refusal = running.detector.refusal()
        if refusal is None:
            return None
        scope["state"]["refusal"] = refusal
        return counted

    return refuses


async def _answer_expected_error(request: Request, error: Exception) -> Response:
    return answer_error(request, error)


def answer_error(request: Request, error: Exception) -> Response:
    """The one error handler: any exception becomes a problem document."""
    problem = _as_service_error(error)
    if is_detection(request.scope):
        request.app.state.running.metrics.rejections.labels(problem.slug).inc()
    headers = dict(getattr(error, "headers", None) or {})
    return Response(
        Problem.of(problem, request.state.request_id).model_dump_json(),
        status_code=problem.status,
        headers=headers,
        media_type="application/problem+json",
    )


def _as_service_error(error: Exception) -> ServiceError:
    match error:
        case ServiceError():
            return error
        case RequestValidationError():
            return InvalidOptionError(describe_errors(error.errors()))
        case ClientDisconnect():
            return ClientLeftError("the client closed the connection")
        case HTTPException():
            kind = HTTP_ERRORS.get(error.status_code, MalformedRequestError)
            return kind(f"{error.detail}; see /docs")
        case _:
            return ServiceError("an unexpected error; the server's log has it by this request_id")
