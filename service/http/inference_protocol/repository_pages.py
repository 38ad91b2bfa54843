"""The calls about the repository by HTTP."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, TypeVar

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from service.errors import MalformedRequestError
from service.http.access.keys import ApiKeys
from service.http.access.note import NOTE
from service.http.bounds import Bounds, fields_of
from service.http.exchange import KeyedRoute
from service.http.inference_protocol.calls.repository import (
    ChangeRequest,
    IndexEntry,
    IndexRequest,
    Repository,
)
from service.http.inference_protocol.described import TAG, errors, json_body
from service.http.openapi.problems import success
from service.http.problems import PROTOCOL, describe_errors
from service.http.running import Running

MAX_BYTES: Final = 64 * 1024

Body = TypeVar("Body", bound=BaseModel)


class RepositoryPages:
    """Answers the calls about the repository.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._repository = Repository(running)
        self._keys = ApiKeys.of_repository(running.settings)

    def routes(self) -> Sequence[APIRoute]:
        """A route for each call."""
        keyed = partial(
            KeyedRoute, keys=self._keys, methods=["POST"], responses=_of_repository(), tags=[TAG]
        )
        path, change = f"{PROTOCOL}/repository", json_body("ChangeRequest")
        return [
            keyed(
                f"{path}/index",
                self.index,
                openapi_extra=json_body("IndexRequest"),
                operation_id="get_repository_index",
            ),
            keyed(
                f"{path}/models/{{name}}/load",
                self.load,
                openapi_extra=change,
                operation_id="load_model",
            ),
            keyed(
                f"{path}/models/{{name}}/unload",
                self.unload,
                openapi_extra=change,
                operation_id="unload_model",
            ),
        ]

    async def index(self, request: Request) -> list[IndexEntry]:
        """Every version of every model, loaded or not."""
        self._repository.check_open()
        asked = await self._read(request, IndexRequest)
        return self._repository.index(only_ready=asked.ready)

    async def load(self, request: Request, name: str) -> dict[str, str]:
        """Load a model, or its new versions."""
        self._repository.check_open()
        asked = await self._read(request, ChangeRequest)
        await self._repository.load(name, asked.parameters or {})
        return {}

    async def unload(self, request: Request, name: str) -> dict[str, str]:
        """Unload a model once its calls are answered."""
        self._repository.check_open()
        asked = await self._read(request, ChangeRequest)
        await self._repository.unload(name, asked.parameters or {})
        return {}

    async def _read(self, request: Request, kind: type[Body]) -> Body:
        """The body of a call, which may be empty."""
        scope = request.scope
        async with Bounds(self._running.bodies) as bounds:
            body = await bounds.read(request.receive, fields_of(scope), MAX_BYTES, scope[NOTE])
            try:
                return kind.model_validate_json(body.strip() or b"{}")
            except ValidationError as error:
                raise MalformedRequestError(describe_errors(error.errors()[:1])) from error


def _of_repository() -> dict[int | str, dict[str, Any]]:
    return success("Done") | errors(400, 401, 403, 409, 413, 503)
