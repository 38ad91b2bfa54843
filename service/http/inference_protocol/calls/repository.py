"""The repository extension: which models there are, and loading or unloading one."""

from collections.abc import Mapping

from pydantic import BaseModel, Field, StrictBool

from service.errors import ForbiddenError
from service.http.inference_protocol.calls.call import refuse_unknown
from service.http.running import Running


class IndexRequest(BaseModel):
    """The body of an index call; it may be empty."""

    ready: StrictBool = Field(default=False, description="Only the models that are ready")


class IndexEntry(BaseModel):
    """A version of a model."""

    name: str
    version: str
    state: str = Field(
        description="`READY`, `LOADING`, or `UNAVAILABLE`, which a version is too that a request "
        "would have loaded; `reason` says so"
    )
    reason: str = Field(description="Why it is not ready, if it is not")


class ChangeRequest(BaseModel):
    """The body of a load or unload call; it may be empty."""

    parameters: dict[str, bool | int | str] | None = None


class Repository:
    """Answers the calls about the repository, whichever way they came.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running

    def check_open(self) -> None:
        """See that these calls are allowed at all.

        Raises:
            ForbiddenError: They are not.
        """
        if self._running.settings.repository_key is None:
            raise ForbiddenError("the setting repository_key, which these calls need, is unset")

    def index(self, *, only_ready: bool) -> list[IndexEntry]:
        """Every version of every model."""
        entries = [
            IndexEntry(
                name=each.name,
                version=each.version,
                # Clients know Triton's states only.
                state="UNAVAILABLE" if each.state == "ON_DEMAND" else each.state,
                reason=each.reason,
            )
            for each in self._running.models.listing()
        ]
        return [entry for entry in entries if entry.state == "READY" or not only_ready]

    async def load(self, name: str, parameters: Mapping[str, object]) -> None:
        """Load a model, or look for new versions of it.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelLoadError: Its newest version cannot be served; an older one serves on.
            MalformedRequestError: A parameter is unknown.
        """
        refuse_unknown(parameters, (), "load")
        await self._running.models.load(name)

    async def unload(self, name: str, parameters: Mapping[str, object]) -> None:
        """Unload a model.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelInUseError: It answers the requests that name no model.
            MalformedRequestError: A parameter is unknown.
        """
        refuse_unknown(parameters, ("unload_dependents",), "unload")
        await self._running.models.unload(name)
