"""What the server answers: detection, the model, health, metrics."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import choose_encoder
from starlette.types import Receive, Scope, Send

from service.core.suppress import DetectionOptions
from service.errors import (
    ClientLeftError,
    DeadlineError,
    InvalidOptionError,
    NotAcceptableError,
    NotReadyError,
    ServiceError,
    UnauthorizedError,
)
from service.http.bodies import BodyMemory, read_options, read_request
from service.http.schemas import (
    DetectJson,
    DetectQuery,
    DetectResponse,
    EngineInfo,
    Health,
    Limits,
    ModelInfo,
    ModelRef,
    Problem,
    answer_json,
    timing_ms,
)
from service.imaging.draw import PictureType, wanted_picture
from service.observe.metrics import Metrics
from service.pipeline.detector import Detector
from service.pipeline.stages import DetectedImage, ImageSource
from service.settings import Settings

T = TypeVar("T")
Outcomes = list[DetectedImage | ServiceError]

# Clients send the same few headers all the time.
_wanted_picture = lru_cache(maxsize=128)(wanted_picture)


@dataclass(frozen=True, slots=True)
class Running:
    """What a started server works with."""

    settings: Settings
    metrics: Metrics
    detector: Detector
    defaults: DetectionOptions
    body_memory: BodyMemory
    model: ModelRef
    engine: EngineInfo


# Plain functions among dependencies are run on threads.
async def _running(request: Request) -> Running:
    running: Running = request.app.state.running
    return running


RunningService = Annotated[Running, Depends(_running)]
KEY_HEADER: Final = APIKeyHeader(name="X-API-Key", auto_error=False)
BEARER_HEADER: Final = HTTPBearer(auto_error=False)


async def check_key(
    running: RunningService,
    key: Annotated[str | None, Security(KEY_HEADER)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER_HEADER)],
) -> None:
    """Let a request through if no API key is configured, or it brings the right one.

    Raises:
        UnauthorizedError: The key is missing or wrong.
    """
    expected = running.settings.api_key
    if expected is None:
        return
    offered = key or (bearer.credentials if bearer else "")
    # Headers are read as latin-1; this gives the bytes that were sent.
    if not secrets.compare_digest(offered.encode("latin-1"), expected.get_secret_value().encode()):
        raise UnauthorizedError("send the key as X-API-Key, or as Authorization: Bearer")


async def check_key_of(request: Request, running: Running) -> None:
    """The same for a request that FastAPI has not taken apart.

    Raises:
        UnauthorizedError: The key is missing or wrong.
    """
    if running.settings.api_key is not None:
        await check_key(running, await KEY_HEADER(request), await BEARER_HEADER(request))


class DirectRoute(APIRoute):
    """Documented by its endpoint's signature, and called without FastAPI's way to the arguments.

    That way takes longer than all that detection costs beside the model; here it is three lines.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call an endpoint of a request, its options and what serves it."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
        running = await _running(request)
        await check_key_of(request, running)
        response = await self.endpoint(request, read_options(request.query_params), running)
        await response(scope, receive, send)


router = APIRouter()
detection = APIRouter(route_class=DirectRoute)

IMAGE_FILE: Final = {"type": "string", "format": "binary"}
IMAGE_FORM: Final = {
    "type": "object",
    "properties": {"images": {"type": "array", "items": IMAGE_FILE}},
}
REQUEST_BODIES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": IMAGE_FORM},
            "image/*": {"schema": IMAGE_FILE},
            "application/octet-stream": {"schema": IMAGE_FILE},
            "application/json": {"schema": DetectJson.model_json_schema()},
        },
    }
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": meaning, "model": Problem}
    for status, meaning in {
        400: "Malformed body, or no image",
        401: "API key missing or wrong",
        406: "A picture of several images",
        413: "Body, image count or pixel count over the limit",
        415: "Not a type that is accepted",
        422: "An option out of range, or an image that cannot be decoded",
        500: "A bug",
        503: "Queue full, shutting down, or the model failed; see Retry-After",
        504: "The deadline passed",
    }.items()
}


@detection.post(
    "/detect",
    response_model=DetectResponse,
    responses=PROBLEMS,
    openapi_extra=REQUEST_BODIES,
    dependencies=[Security(check_key)],
)
async def detect(
    request: Request, query: Annotated[DetectQuery, Query()], running: RunningService
) -> Response:
    """Find objects in one or several images.

    Send image files as multipart parts named `images`, one image as the raw body, or JSON with
    base64. With `Accept: image/png` or `image/jpeg`, one image comes back with its boxes drawn.
    """
    started = time.monotonic()
    arrival = running.detector.arrive()
    picture = _wanted_picture(request.headers.get("accept", ""))
    limit_s = running.settings.request_timeout_ms / 1000
    with running.body_memory.lease() as lease:
        try:
            async with asyncio.timeout(_timeout_s(query, limit_s)) as clock:
                with arrival:
                    sources, options = await read_request(request, query, running.settings, lease)
                deadline = started + _timeout_s(options, limit_s)
                if options.timeout_ms != query.timeout_ms:
                    now = asyncio.get_running_loop().time()
                    clock.reschedule(now + deadline - time.monotonic())
                work = _answer(running, sources, options, started, deadline, picture)
                body, timing, headers = await _while_connected(request.receive, clock, work)
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the answer was ready") from error
    request.state.stages.update(timing)
    return Response(body, headers=headers, media_type=picture or "application/json")


async def _answer(
    running: Running,
    sources: list[ImageSource],
    query: DetectQuery,
    started: float,
    deadline: float,
    picture: PictureType | None,
) -> tuple[bytes, dict[str, float], dict[str, str]]:
    """The body of the answer, a picture if that is wanted, where the time went, and headers."""
    if picture is not None and len(sources) > 1:
        raise NotAcceptableError("a picture can show one image; ask for application/json")
    detector = running.detector
    options = query.resolve(running.defaults, detector.contract.class_names)
    if picture is not None:
        image, drawn = await detector.detect_drawn(sources[0], options, deadline, picture)
        return drawn, timing_ms([image.seconds], time.monotonic() - started), {}
    outcomes = await detector.detect_all(sources, options, deadline)
    found = [outcome for outcome in outcomes if isinstance(outcome, DetectedImage)]
    if not found:
        raise _gravest(outcomes)
    timing = timing_ms([image.seconds for image in found], time.monotonic() - started)
    named = zip([source.filename for source in sources], outcomes, strict=True)
    body = answer_json(running.model, named, detector.contract.class_names, timing)
    return body, timing, _count_refused(running, outcomes)


def _count_refused(running: Running, outcomes: Outcomes) -> dict[str, str]:
    """Count the images that may be sent again later; gives the header that says when."""
    wait_s = 0
    for outcome in outcomes:
        if isinstance(outcome, ServiceError) and outcome.retry_after_s is not None:
            running.metrics.rejections.labels(outcome.slug).inc()
            wait_s = max(wait_s, outcome.retry_after_s)
    return {"Retry-After": str(wait_s)} if wait_s else {}


def _timeout_s(query: DetectQuery, limit_s: float) -> float:
    """Seconds that a request may take.

    Raises:
        InvalidOptionError: More is asked than the server allows.
    """
    if query.timeout_ms is None:
        return limit_s
    if query.timeout_ms > limit_s * 1000:
        raise InvalidOptionError(f"timeout_ms may be at most {limit_s * 1000:g}")
    return query.timeout_ms / 1000


async def _while_connected(
    receive: Receive, clock: asyncio.Timeout, work: Coroutine[Any, Any, T]
) -> T:
    """Finish the work unless the client leaves first, for which the clock runs out at once.

    Raises:
        ClientLeftError: The client left.
    """
    leaving = asyncio.create_task(_until_disconnect(receive, clock))
    try:
        return await work
    except asyncio.CancelledError:
        if leaving.done():
            raise ClientLeftError("the client closed the connection") from None
        raise
    finally:
        leaving.cancel()


async def _until_disconnect(receive: Receive, clock: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not clock.expired():
        clock.reschedule(asyncio.get_running_loop().time())


def _gravest(outcomes: Outcomes) -> ServiceError:
    """What a request without a single good image fails with, as a whole."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    gravest = max(errors, key=lambda error: error.status)
    if len(errors) == 1:
        return gravest
    return type(gravest)(
        f"none of the {len(errors)} images could be used; one of them: {gravest.detail}",
        retry_after_s=gravest.retry_after_s,
    )


@router.get("/model", dependencies=[Security(check_key)], responses={401: PROBLEMS[401]})
async def model(running: RunningService) -> ModelInfo:
    """The model's contract, where it runs, the limits and the default options."""
    settings, detector = running.settings, running.detector
    defaults = asdict(running.defaults)
    return ModelInfo(
        contract=detector.contract,
        provider=running.model.provider,
        engine=running.engine,
        device=settings.device,
        limits=Limits(**{name: getattr(settings, name) for name in Limits.model_fields}),
        defaults={name: defaults[name] for name in defaults if name in DetectQuery.model_fields},
    )


@router.head("/health/live", include_in_schema=False)
@router.get("/health/live")
async def live() -> Health:
    """The process answers."""
    return Health(status="alive")


@router.head("/health/ready", include_in_schema=False)
@router.get("/health/ready", responses={503: {"description": "Why not", "model": Problem}})
async def ready(running: RunningService) -> Health:
    """An inference has succeeded lately, and the server is not shutting down."""
    reason = running.detector.unready_reason()
    if reason is not None:
        raise NotReadyError(reason, retry_after_s=1)
    return Health(status="ready")


@router.get("/metrics", response_class=Response)
def metrics(request: Request, running: RunningService) -> Response:
    """Prometheus metrics."""
    try:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
    except (TypeError, ValueError):  # a version that is no version
        encode, content_type = choose_encoder("")
    return Response(encode(running.metrics.registry), headers={"Content-Type": content_type})


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """People who open the address in a browser want the documentation."""
    return RedirectResponse("/docs")
