"""What the server answers: detection, the model, health, metrics."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.responses import RedirectResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import choose_encoder
from starlette.types import Receive

from service.bodies import IMAGE_FIELDS, read_request
from service.core.suppress import DetectionOptions
from service.detector import DetectedImage, Detector, ImageSource
from service.errors import (
    ClientLeftError,
    DeadlineError,
    InvalidOptionError,
    NotAcceptableError,
    NotReadyError,
    ServiceError,
    UnauthorizedError,
)
from service.metrics import Metrics
from service.picture import PictureType, draw_detections, wanted_picture
from service.schemas import (
    DetectJson,
    DetectQuery,
    DetectResponse,
    Health,
    Limits,
    ModelInfo,
    ModelRef,
    Problem,
    image_result,
    timing_ms,
)
from service.settings import Settings

T = TypeVar("T")
Outcomes = list[DetectedImage | ServiceError]

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Running:
    """What a started server works with."""

    settings: Settings
    metrics: Metrics
    detector: Detector
    defaults: DetectionOptions


def _running(request: Request) -> Running:
    running: Running = request.app.state.running
    return running


RunningService = Annotated[Running, Depends(_running)]


def check_key(
    running: RunningService,
    key: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(HTTPBearer(auto_error=False))],
) -> None:
    """Let a request through if no API key is configured, or it brings the right one.

    Raises:
        UnauthorizedError: The key is missing or wrong.
    """
    expected = running.settings.api_key
    if expected is None:
        return
    offered = key or (bearer.credentials if bearer else "")
    if not secrets.compare_digest(offered.encode(), expected.get_secret_value().encode()):
        raise UnauthorizedError("send the key as X-API-Key, or as Authorization: Bearer")


IMAGE_FORM: Final = {
    "type": "object",
    "properties": {
        name: {"type": "array", "items": {"type": "string", "format": "binary"}}
        for name in IMAGE_FIELDS[:1]
    },
}
REQUEST_BODIES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": IMAGE_FORM},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
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
        503: "Queue full, shutting down, or the model failed; see Retry-After",
        504: "The deadline passed",
    }.items()
}


@router.post(
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
    running.detector.check_accepting()
    picture = wanted_picture(request.headers.get("accept", ""))
    limit_s = running.settings.request_timeout_ms / 1000
    try:
        async with asyncio.timeout(_timeout_s(query, limit_s)):
            sources, query = await read_request(request, query, running.settings)
        deadline = started + _timeout_s(query, limit_s)
        async with asyncio.timeout(deadline - time.monotonic()):
            outcomes = await _detect(request, running, sources, query, deadline, picture)
    except TimeoutError as error:
        raise DeadlineError("the deadline passed before the answer was ready") from error
    answer = _describe(sources, outcomes, running, time.monotonic() - started)
    request.state.stages.update(answer.timing_ms.model_dump(exclude={"total"}))
    if picture is not None:
        return await _draw(outcomes[0], running, picture)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _detect(
    request: Request,
    running: Running,
    sources: list[ImageSource],
    query: DetectQuery,
    deadline: float,
    picture: PictureType | None,
) -> Outcomes:
    if picture is not None and len(sources) > 1:
        raise NotAcceptableError("a picture can show one image; ask for application/json")
    detector = running.detector
    options = query.resolve(running.defaults, detector.contract.class_names)
    work = detector.detect_all(sources, options, deadline, keep_pixels=picture is not None)
    outcomes = await _while_connected(request.receive, work)
    _raise_if_none_worked(outcomes)
    return outcomes


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


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Finish the work unless the client leaves first, which cancels it.

    Raises:
        ClientLeftError: The client left.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError("the client closed the connection")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _raise_if_none_worked(outcomes: Outcomes) -> None:
    """A request without a single good image fails as a whole, with its gravest error."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    if len(errors) < len(outcomes):
        return
    gravest = max(errors, key=lambda error: error.status)
    if len(errors) == 1:
        raise gravest
    raise type(gravest)(
        f"none of the {len(errors)} images could be used; one of them: {gravest.detail}",
        retry_after_s=gravest.retry_after_s,
    )


def _describe(
    sources: list[ImageSource], outcomes: Outcomes, running: Running, total_s: float
) -> DetectResponse:
    contract = running.detector.contract
    return DetectResponse(
        model=ModelRef(
            name=contract.name, version=contract.version, provider=running.detector.provider
        ),
        results=[
            image_result(source.filename, outcome, contract.class_names)
            for source, outcome in zip(sources, outcomes, strict=True)
        ],
        timing_ms=timing_ms(
            [outcome.seconds for outcome in outcomes if isinstance(outcome, DetectedImage)],
            total_s,
        ),
    )


async def _draw(
    outcome: DetectedImage | ServiceError, running: Running, picture: PictureType
) -> Response:
    if isinstance(outcome, ServiceError) or outcome.pixels is None:
        raise TypeError("only a detected image with its pixels can be drawn")
    names = running.detector.contract.class_names
    content = await asyncio.to_thread(
        draw_detections, outcome.pixels, outcome.detections, names, picture
    )
    return Response(content, media_type=picture)


@router.get("/model", dependencies=[Security(check_key)], responses={401: PROBLEMS[401]})
async def model(running: RunningService) -> ModelInfo:
    """The model's contract, where it runs, the limits and the default options."""
    settings, detector = running.settings, running.detector
    defaults = asdict(running.defaults)
    return ModelInfo(
        contract=detector.contract,
        provider=detector.provider,
        device=settings.device,
        limits=Limits(**{name: getattr(settings, name) for name in Limits.model_fields}),
        defaults={name: defaults[name] for name in defaults if name in DetectQuery.model_fields},
    )


@router.get("/health/live")
async def live() -> Health:
    """The process answers."""
    return Health(status="alive")


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
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(running.metrics.registry), headers={"Content-Type": content_type})


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """People who open the address in a browser want the documentation."""
    return RedirectResponse("/docs")
