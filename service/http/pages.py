"""The server's pages about itself: the model, its health, its metrics."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from service.core.contract import ModelContract
from service.errors import NotAliveError, NotReadyError
from service.http.exchange import KeyedRoute, ReadRoute
from service.http.openapi.problems import dead_problem, problems, success, unready_problem
from service.http.options import DetectQuery
from service.http.page.static import docs_routes, page_routes
from service.http.running import Running
from service.models.catalog import State
from service.models.defaults import Origin, default_origins

# The format that Prometheus asks for, and the one for all others.
METRICS: Final = {
    media_type: {"schema": {"type": "string"}}
    for media_type in ("text/plain", "application/openmetrics-text")
}


NameQuery = Annotated[str | None, Query(description="Name of the model (absent: the default's)")]
VersionQuery = Annotated[str | None, Query(description="Its version (absent: the default one)")]


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
    defaults_from: dict[str, Origin] = Field(
        description="Why: a setting of the server, what the model recommends, or the article's "
        "values where neither says anything"
    )


class ListedModel(BaseModel):
    """One version of a model."""

    name: str
    version: str
    state: State = Field(
        description="READY: it answers requests; ON_DEMAND: a request that names it has it loaded; "
        "UNAVAILABLE: see `reason`"
    )
    reason: str
    default: bool = Field(description="Whether requests that name no model go to this model")
    share: float = Field(description="Part of the model's requests without a version that it gets")
    shadow: bool = Field(description="Whether it sees images only so that answers are compared")


class ModelList(BaseModel):
    """The answer of `GET /models`."""

    models: list[ListedModel]


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
        """A route for each page; the metrics have a port of their own if one is set."""
        settings = self._running.settings
        metrics = ReadRoute(
            "/metrics",
            self.metrics,
            response_class=Response,
            responses=success("Metrics", METRICS) | problems(),
            operation_id="get_metrics",
            tags=["operation"],
        )
        return [
            KeyedRoute(
                "/model",
                self.model,
                self._running.keys,
                responses=success("The model and the server") | problems(401, 422, 503),
                operation_id="get_model",
                tags=["server"],
            ),
            KeyedRoute(
                "/models",
                self.models,
                self._running.keys,
                responses=success("All models") | problems(401),
                operation_id="list_models",
                tags=["server"],
            ),
            *_health(
                "/health/live",
                self.live,
                "liveness",
                success("Alive") | problems() | dead_problem(),
            ),
            *_health(
                "/health/ready",
                self.ready,
                "readiness",
                success("Ready") | problems() | unready_problem(),
            ),
            *([metrics] if settings.metrics_port is None else []),
            *docs_routes(),
            *self._start_page(),
        ]

    async def models(self) -> ModelList:
        """Every version of every model, and whether it answers requests now."""
        listed = [ListedModel(**asdict(state)) for state in self._running.models.listing()]
        return ModelList(models=listed)

    async def model(self, model: NameQuery = None, version: VersionQuery = None) -> ModelInfo:
        """A model's contract, where it runs, the limits and the default options."""
        settings = self._running.settings
        models = self._running.models
        served = await models.get(model or None, version or models.main_version(model))
        defaults = asdict(served.defaults)
        return ModelInfo(
            contract=served.detector.contract,
            provider=served.engine.provider,
            engine=EngineInfo(
                provider=served.engine.provider,
                precision=served.engine.precision,
                threads=served.engine.threads,
            ),
            device=settings.device,
            limits=Limits(**{name: getattr(settings, name) for name in Limits.model_fields}),
            defaults={
                name: defaults[name] for name in defaults if name in DetectQuery.model_fields
            },
            defaults_from={
                **default_origins(settings, served.detector.contract),
                "max_detections": "setting",
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
        reason = self._running.health.unready_reason()
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

    def _start_page(self) -> Sequence[APIRoute]:
        if self._running.settings.page:
            return page_routes()
        return [ReadRoute("/", self.root, include_in_schema=False)]

    async def root(self) -> RedirectResponse:
        """People who open the address in a browser want the documentation, if there is no page."""
        return RedirectResponse("docs")


def _health(
    path: str, endpoint: Callable[..., Any], name: str, responses: dict[int | str, dict[str, Any]]
) -> list[APIRoute]:
    """A route for each of the methods that balancers use."""
    return [
        ReadRoute(
            path,
            endpoint,
            methods=[method],
            responses=responses,
            operation_id=f"{method.lower()}_{name}",
            tags=["operation"],
        )
        for method in ("GET", "HEAD")
    ]
