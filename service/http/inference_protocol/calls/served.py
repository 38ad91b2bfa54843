"""The models that calls name."""

from service.errors import ModelLoadError
from service.http.running import Running
from service.models.served import ServedModel


async def find(running: Running, name: str, version: str | None) -> ServedModel:
    """The model that a call names; it is loaded, if it was not.

    Args:
        running: The parts of the server.
        name: The model's name.
        version: The version; None or "" for the one that the server chooses.

    Raises:
        ModelNotFoundError: There is none.
        ModelLoadError: There is, and it cannot be loaded.
    """
    return await running.models.get(name, version or None)


def versions_of(running: Running, name: str) -> list[str]:
    """The versions of a model that a call may name."""
    return [state.version for state in running.models.listing() if state.name == name]


def unready_reason(running: Running, name: str, version: str | None) -> str | None:
    """Why a call of this model would not be answered at once, or None.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    try:
        model = running.models.pick(name, version or None)
    except ModelLoadError as error:
        return error.detail
    return running.health.unready_reason() or model.detector.broken_reason()
