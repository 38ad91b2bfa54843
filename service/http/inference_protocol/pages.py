"""The protocol's questions about the server and its models."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.errors import NotAliveError, NotReadyError
from service.http.exchange import MODELS, KeyedRoute, ReadRoute
from service.http.inference_protocol.calls.metadata import (
    ModelMetadata,
    ServerMetadata,
    model_metadata,
    server_metadata,
)
from service.http.inference_protocol.calls.served import find, unready_reason, versions_of
from service.http.inference_protocol.described import TAG, VERSION, errors, unready
from service.http.openapi.problems import success
from service.http.problems import PROTOCOL
from service.http.running import Running


class Live(BaseModel):
    """The answer of a server that is alive."""

    live: bool


class Ready(BaseModel):
    """The answer of a server that is ready."""

    ready: bool


class ModelReady(BaseModel):
    """The answer of a model that is ready."""

    name: str
    ready: bool


class ProtocolPages:
    """Answers the protocol's questions about the server and its models.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running

    def routes(self) -> Sequence[APIRoute]:
        """A route for each question."""
        keyed = partial(KeyedRoute, keys=self._running.keys, methods=["GET"], tags=[TAG])
        model = success("The model") | errors(401)
        ready = success("Ready") | errors(401) | unready()
        path = f"{MODELS}{{name}}"
        return [
            keyed(
                PROTOCOL,
                self.server,
                responses=success("The server") | errors(401),
                operation_id="get_server_metadata",
            ),
            # With a slash in KServe's OpenAPI document, and without one in its text.
            keyed(f"{PROTOCOL}/", self.server, include_in_schema=False),
            _health("live", self.live, "get_server_liveness"),
            _health("ready", self.ready, "get_server_readiness"),
            keyed(path, self.model, responses=model, operation_id="get_model_metadata"),
            keyed(
                path + VERSION,
                self.model_version,
                responses=model,
                operation_id="get_model_version_metadata",
            ),
            keyed(
                f"{path}/ready",
                self.model_ready,
                responses=ready,
                operation_id="get_model_readiness",
            ),
            keyed(
                f"{path}{VERSION}/ready",
                self.version_ready,
                responses=ready,
                operation_id="get_model_version_readiness",
            ),
        ]

    async def server(self) -> ServerMetadata:
        """The server's name, version and extensions of the protocol."""
        return server_metadata()

    async def live(self) -> Live:
        """The process answers, and its engine has not failed for good."""
        reason = self._running.dead_reason()
        if reason is not None:
            raise NotAliveError(reason)
        return Live(live=True)

    async def ready(self) -> Ready:
        """An inference has succeeded lately, and the server is not shutting down."""
        reason = self._running.health.unready_reason()
        if reason is not None:
            raise NotReadyError(reason, retry_after_s=1)
        return Ready(ready=True)

    async def model(self, name: str) -> ModelMetadata:
        """A model's versions, its input and its outputs."""
        return await self._metadata(name)

    async def model_version(self, name: str, version: str) -> ModelMetadata:
        """The same of one version."""
        return await self._metadata(name, version)

    async def model_ready(self, name: str) -> ModelReady:
        """A call of this model would be answered now."""
        return self._readiness(name)

    async def version_ready(self, name: str, version: str) -> ModelReady:
        """A call of this version would be answered now."""
        return self._readiness(name, version)

    async def _metadata(self, name: str, version: str | None = None) -> ModelMetadata:
        model = await find(self._running, name, version)
        return model_metadata(model, versions_of(self._running, name))

    def _readiness(self, name: str, version: str | None = None) -> ModelReady:
        reason = unready_reason(self._running, name, version)
        if reason is not None:
            raise NotReadyError(reason, retry_after_s=1)
        return ModelReady(name=name, ready=True)


def _health(path: str, endpoint: Callable[..., Any], operation: str) -> APIRoute:
    return ReadRoute(
        f"{PROTOCOL}/health/{path}",
        endpoint,
        methods=["GET"],
        responses=success("It is") | errors() | unready(),
        operation_id=operation,
        tags=[TAG],
    )
