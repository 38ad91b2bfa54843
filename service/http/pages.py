"""The server's pages about itself: the model, its health, its metrics."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from service.core.contract import ModelContract
from service.errors import NotAliveError, NotReadyError
from service.http.exchange import KeyedRoute
from service.http.openapi import KEY_PROBLEM, UNHEALTHY
from service.http.options import DetectQuery
from service.http.running import Running


class Limits(BaseModel):
    """The limits of this server."""

    max_body_bytes: int
    max_images_per_request: int
    max_image_pixels: int
    max_queue_images: int
    max_detections: int
    request_timeout_ms: int


class EngineInfo(BaseModel):
    """The engine that runs the model."""

    provider: str = Field(description="The execution provider that the model really runs on")
    precision: str = Field(description="The number format that it multiplies in")
    threads: int = Field(description="CPU threads of one call, where others run beside it")


class ModelInfo(BaseModel):
    """The answer of `GET /model`."""

    contract: ModelContract
    provider: str
    engine: EngineInfo
    device: str = Field(description="What was asked for")
    limits: Limits
    defaults: dict[str, str | bool | int | float] = Field(
        description="Options of a request that has none"
    )


class Health(BaseModel):
    """The answer of a healthy `/health` endpoint."""

    status: str


class Pages:
    """Answers `GET` requests about the server.

    Args:
        running: The parts of the server that the pages describe.
    """

    def __init__(self, running: Running) -> None:
        self._running = running

    def routes(self) -> Sequence[APIRoute]:
        """A route for each page."""
        return [
            KeyedRoute("/model", self.model, self._running.settings.api_key, responses=KEY_PROBLEM),
            APIRoute("/health/live", self.live, responses=UNHEALTHY),
            _head("/health/live", self.live),
            APIRoute("/health/ready", self.ready, responses=UNHEALTHY),
            _head("/health/ready", self.ready),
            APIRoute("/metrics", self.metrics, response_class=Response),
            APIRoute("/", self.root, include_in_schema=False),
        ]

    async def model(self) -> ModelInfo:
        """The model's contract, where it runs, the limits and the default options."""
        running, settings = self._running, self._running.settings
        defaults = asdict(running.defaults)
        return ModelInfo(
            contract=running.detector.contract,
            provider=running.model.provider,
            engine=EngineInfo(
                provider=running.engine.provider,
                precision=running.engine.precision,
                threads=running.engine.threads,
            ),
            device=settings.device,
            limits=Limits(**{name: getattr(settings, name) for name in Limits.model_fields}),
            defaults={
                name: defaults[name] for name in defaults if name in DetectQuery.model_fields
            },
        )

    async def live(self) -> Health:
        """The process answers, and its engine has not failed for good."""
        reason = self._running.dead_reason()
        if reason is not None:
            raise NotAliveError(reason)
        return Health(status="alive")

    async def ready(self) -> Health:
        """An inference has succeeded lately, and the server is not shutting down."""
        reason = self._running.detector.unready_reason()
        if reason is not None:
            raise NotReadyError(reason, retry_after_s=1)
        return Health(status="ready")

    def metrics(self, request: Request) -> Response:
        """Prometheus metrics."""
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is no version
            encode, content_type = choose_encoder("")
        content = encode(self._running.metrics.registry)
        return Response(content, headers={"Content-Type": content_type})

    async def root(self) -> RedirectResponse:
        """People who open the address in a browser want the documentation."""
        return RedirectResponse("/docs")


def _head(path: str, endpoint: Callable[..., Any]) -> APIRoute:
    return APIRoute(path, endpoint, methods=["HEAD"], include_in_schema=False)
