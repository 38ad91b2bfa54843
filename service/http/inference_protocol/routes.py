"""The paths to which calls of a model are sent."""

from typing import Final

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from service.http.access.note import NOTE, Note
from service.http.bounds import Bounds, fields_of
from service.http.exchange import INFER, MODELS, KeyedRoute
from service.http.inference_protocol.calls.inference import infer, limits_of
from service.http.inference_protocol.calls.served import find
from service.http.inference_protocol.described import TAG, VERSION, infer_answers, infer_body
from service.http.inference_protocol.json_answer import InferenceResponse, answer
from service.http.inference_protocol.json_call import HttpCall, read_call
from service.http.openapi.detection import EXAMPLE_IMAGE
from service.http.running import Running
from service.models.served import ServedModel

HEADER_LENGTH: Final = "inference-header-content-length"


def inference_routes(running: Running) -> list[KeyedRoute]:
    """The routes, without a version and with one."""
    return [InferRoute(running), InferRoute(running, VERSION)]


class InferRoute(KeyedRoute):
    """Inference; as with `/detect`, FastAPI documents it, and does not call it by its signature.

    Args:
        running: The parts of the server that answer requests.
        version: `/versions/{version}`, or nothing.
    """

    def __init__(self, running: Running, version: str = "") -> None:
        self._endpoint = InferEndpoint(running)
        self._unread = running.unread
        calls = (self._endpoint.infer, "infer"), (self._endpoint.infer_version, "infer_version")
        endpoint, operation = calls[bool(version)]
        super().__init__(
            f"{MODELS}{{name}}{version}{INFER}",
            endpoint,
            running.keys,
            methods=["POST"],
            response_model=InferenceResponse,
            responses=infer_answers(),
            openapi_extra=infer_body(EXAMPLE_IMAGE),
            operation_id=operation,
            tags=[TAG],
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint with the request and the model of its path."""
        response = await self._endpoint.answer(
            Request(scope, receive, send), **scope["path_params"]
        )
        await self._unread.send(response, scope, receive, send)


class InferEndpoint:
    """Answers inference requests.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._limits = limits_of(running)

    async def infer(self, request: Request, name: str) -> Response:
        """Find objects in one or several images, with a version that the server chooses."""
        return await self.answer(request, name)

    async def infer_version(self, request: Request, name: str, version: str) -> Response:
        """Find objects in one or several images, with this version of the model."""
        return await self.answer(request, name, version)

    async def answer(self, request: Request, name: str, version: str | None = None) -> Response:
        """The answer to a request for this model."""
        note: Note = request.scope[NOTE]
        settings, receive = self._running.settings, request.receive
        async with Bounds(self._running.bodies, settings.request_timeout_ms / 1000) as bounds:
            model = await find(self._running, name, version)
            note["model"] = model.label
            with self._running.pipeline.arrive():
                fields = fields_of(request.scope)
                body = await bounds.read(receive, fields, settings.max_body_bytes, note)
                sent = read_call(body, request.headers.get(HEADER_LENGTH), self._limits)
            bounds.set_time(sent.call.query.timeout_ms)
            return await bounds.unless_client_leaves(receive, _answer(model, sent, bounds, note))


async def _answer(model: ServedModel, sent: HttpCall, bounds: Bounds, note: Note) -> Response:
    found = await infer(model, sent.call, bounds, note)
    return answer((model.name, model.version), sent.call.id, found, sent.binary)
