"""Which models there are, and which version of one answers a request."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from service.errors import ModelNotFoundError
from service.models.served import ServedModel

State = Literal["READY", "LOADING", "UNAVAILABLE"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version of a model in a list of all.

    Attributes:
        name: The model's name.
        version: The version's.
        state: Whether it answers requests now.
        reason: Why it does not, or what is to be known about it; else empty.
        default: Whether requests that name neither model nor version get it.
    """

    name: str
    version: str
    state: State
    reason: str = ""
    default: bool = False


class Catalog:
    """The models by name and version. Everything here happens on the event loop.

    Args:
        first: The model that answers requests which name none.
    """

    def __init__(self, first: ServedModel) -> None:
        self._table: dict[tuple[str | None, str | None], ServedModel] = {}
        for name in (None, first.name):
            for version in (None, first.version):
                self._table[name, version] = first

    @property
    def default(self) -> ServedModel:
        """The model that answers requests which name none."""
        return self._table[None, None]

    def pick(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The loaded model that answers a request now.

        Args:
            name: The model's name; None for the default model.
            version: Its version; None for the one that is served by default.

        Raises:
            ModelNotFoundError: There is no such model or version; the error names what there is.
        """
        served = self._table.get((name, version))
        if served is None:
            raise self._not_found(name, version)
        return served

    async def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The same as `pick`, but a model that is not loaded is loaded first.

        Raises:
            ModelNotFoundError: There is no such model or version.
        """
        return self.pick(name, version)

    def listing(self) -> list[ModelState]:
        """Every version of every model, sorted by name."""
        one = self.default
        return [ModelState(one.name, one.version, "READY", default=True)]

    def _not_found(self, name: str | None, version: str | None) -> ModelNotFoundError:
        named = name or self.default.name
        versions = {state.version for state in self.listing() if state.name == named}
        if versions:
            there = f"it has {_listed(versions)}"
            return ModelNotFoundError(f"model {named!r} has no version {version!r}; {there}")
        names = _listed({state.name for state in self.listing()})
        return ModelNotFoundError(f"there is no model {named!r}; there are {names}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
