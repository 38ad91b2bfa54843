"""The calls of the protocol's service."""

from collections.abc import Mapping
from typing import Final

from service.grpc.exchange import Context, GrpcExchange, Handler, Receive, parsed
from service.grpc.messages import inference_pb2 as pb
from service.grpc.translation import parameters_of, read_call, write_answer
from service.http.access.keys import ApiKeys
from service.http.access.note import Note
from service.http.bounds import Bounds
from service.http.inference_protocol.calls.inference import infer, limits_of
from service.http.inference_protocol.calls.metadata import model_metadata, server_metadata
from service.http.inference_protocol.calls.repository import Repository
from service.http.inference_protocol.calls.served import find, unready_reason, versions_of
from service.http.running import Running

SERVICE: Final = "inference.GRPCInferenceService"


class InferenceService:
    """Answers the calls.

    Args:
        running: The parts of the server that answer requests.
        exchange: The common part of all calls.
    """

    def __init__(self, running: Running, exchange: GrpcExchange) -> None:
        self._running = running
        self._exchange = exchange
        self._limits = limits_of(running)
        self._repository = Repository(running)

    def handlers(self) -> Mapping[str, Handler]:
        """A handler for each call, by its name."""
        keys, own = self._running.keys, ApiKeys.of_repository(self._running.settings)
        calls = {
            "ServerLive": (self.live, None),
            "ServerReady": (self.ready, None),
            "ModelReady": (self.model_ready, keys),
            "ServerMetadata": (self.server, keys),
            "ModelMetadata": (self.model, keys),
            "ModelInfer": (self.infer, keys),
            "RepositoryIndex": (self.index, own),
            "RepositoryModelLoad": (self.load, own),
            "RepositoryModelUnload": (self.unload, own),
        }
        return {
            name: self._exchange.handler(
                f"/{SERVICE}/{name}", work, needed, detects=name == "ModelInfer"
            )
            for name, (work, needed) in calls.items()
        }

    async def live(self, receive: Receive, _: Context, __: Note) -> pb.ServerLiveResponse:
        """Whether the engine has not failed for good."""
        parsed(pb.ServerLiveRequest, await receive())
        return pb.ServerLiveResponse(live=self._running.dead_reason() is None)

    async def ready(self, receive: Receive, _: Context, __: Note) -> pb.ServerReadyResponse:
        """Whether the server takes new work."""
        parsed(pb.ServerReadyRequest, await receive())
        return pb.ServerReadyResponse(ready=self._running.health.unready_reason() is None)

    async def model_ready(self, receive: Receive, _: Context, __: Note) -> pb.ModelReadyResponse:
        """Whether a call of a model would be answered now."""
        asked = parsed(pb.ModelReadyRequest, await receive())
        reason = unready_reason(self._running, asked.name, asked.version)
        return pb.ModelReadyResponse(ready=reason is None)

    async def server(self, receive: Receive, _: Context, __: Note) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions."""
        parsed(pb.ServerMetadataRequest, await receive())
        return pb.ServerMetadataResponse(**server_metadata().model_dump())

    async def model(self, receive: Receive, _: Context, __: Note) -> pb.ModelMetadataResponse:
        """A model's versions, its input and its outputs."""
        asked = parsed(pb.ModelMetadataRequest, await receive())
        model = await find(self._running, asked.name, asked.version)
        told = model_metadata(model, versions_of(self._running, asked.name))
        return pb.ModelMetadataResponse(**told.model_dump())

    async def infer(self, receive: Receive, context: Context, note: Note) -> pb.ModelInferResponse:
        """Find objects in one or several images."""
        running = self._running
        limit_s = running.settings.request_timeout_ms / 1000
        left_s: float | None = context.time_remaining()
        limit_s = limit_s if left_s is None else min(limit_s, left_s)
        async with Bounds(running.bodies, limit_s) as bounds:
            with running.pipeline.arrive():
                content = await receive()
                note["bytes"] = len(content)
                bounds.grow(len(content))
                request = parsed(pb.ModelInferRequest, content)
                del content
                model = await find(running, request.model_name, request.model_version)
                note["model"] = model.label
                call = read_call(request, self._limits)
            if call.query.timeout_ms is not None:
                bounds.set_time(call.query.timeout_ms)
            found = await infer(model, call, bounds, note)
            return write_answer((model.name, model.version), call.id, found)

    async def index(self, receive: Receive, _: Context, __: Note) -> pb.RepositoryIndexResponse:
        """Every version of every model, loaded or not."""
        self._repository.check_open()
        asked = parsed(pb.RepositoryIndexRequest, await receive())
        entries = self._repository.index(only_ready=asked.ready)
        kind = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(models=[kind(**each.model_dump()) for each in entries])

    async def load(self, receive: Receive, _: Context, __: Note) -> pb.RepositoryModelLoadResponse:
        """Load a model, or its new versions."""
        self._repository.check_open()
        asked = parsed(pb.RepositoryModelLoadRequest, await receive())
        await self._repository.load(asked.model_name, parameters_of(asked.parameters))
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, receive: Receive, _: Context, __: Note
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model once its calls are answered."""
        self._repository.check_open()
        asked = parsed(pb.RepositoryModelUnloadRequest, await receive())
        await self._repository.unload(asked.model_name, parameters_of(asked.parameters))
        return pb.RepositoryModelUnloadResponse()
