"""Which models there are, and which version of one answers a request."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from service.errors import ModelLoadError, ModelNotFoundError, StartupError
from service.models.folder.traffic import NO_TRAFFIC, Traffic
from service.models.repository import ModelFile, RepositoryModel
from service.models.served import ServedModel
from service.models.stock import Key, LoadedModel, Stock

State = Literal["READY", "LOADING", "ON_DEMAND", "UNAVAILABLE"]
ON_DEMAND = "loaded when a request asks for it"
LOADING = "it is being loaded"
UNLOADED = "unloaded"


@dataclass(frozen=True, slots=True)
class ModelState:
    """One version of a model in a list of all.

    Attributes:
        name: The model's name.
        version: The version's.
        state: Whether it answers requests now; `ON_DEMAND` once a request has had it loaded.
        reason: Why it does not, or what is wrong with its file; else empty.
        default: Whether it is of the model that answers requests which name none.
        share: The part of the requests without a version that it answers.
        shadow: Whether it sees images only to be compared.
    """

    name: str
    version: str
    state: State
    reason: str = ""
    default: bool = False
    share: float = 0.0
    shadow: bool = False


class Catalog:
    """The models by name and version. Everything here happens on the event loop.

    Args:
        stock: The models that are loaded.
        default_name: The model that answers requests which name none.
        found: The models that there are.

    Attributes:
        ready: The models that answer now, by the name and version of a request, which may be None.
        found: The models that there are; a file that is served by itself is one of them.
        routes: Which versions of a model answer its requests.
        unloaded: Models that a call has unloaded.
        default_name: The model that answers requests which name none.
    """

    def __init__(
        self,
        stock: Stock,
        default_name: str,
        found: Mapping[str, RepositoryModel],
    ) -> None:
        self._stock = stock
        self.ready: dict[tuple[str | None, str | None], ServedModel] = {}
        self._on_demand: dict[Key, asyncio.Task[LoadedModel]] = {}
        self.default_name = default_name
        self.found = dict(found)
        self.routes: dict[str, Traffic] = {}
        self.unloaded: set[str] = set()
        stock.on_change = self.rebuild

    @property
    def default(self) -> ServedModel:
        """The model that answers requests which name none, or another while it is unloaded."""
        served = self.ready.get((None, None))
        if served is not None:
            return served
        loaded = self._stock.loaded
        key = (self.default_name, self.main_version(self.default_name) or "")
        return (loaded[key] if key in loaded else next(iter(loaded.values()))).served

    def pick(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The loaded model that answers a request now.

        Args:
            name: The model's name; None for the default model.
            version: Its version; None for one of those that share the requests.

        Raises:
            ModelNotFoundError: There is no such model or version; the error names what there is.
            ModelLoadError: There is, and it is not loaded now.
        """
        served = self.ready.get((name, version))
        if served is not None:
            return served
        key = self._resolve(name, version)
        if key not in self._stock.loaded:
            raise self._unavailable(key, ON_DEMAND)
        return self._stock.loaded[key].served

    async def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The same as `pick`, but a model that is not loaded is loaded first.

        Requests that wait for a model wait for one load of it, each within its own deadline.

        Raises:
            ModelNotFoundError: There is no such model or version.
            ModelLoadError: It cannot be loaded.
        """
        served = self.ready.get((name, version))
        if served is not None:
            return served
        key = self._resolve(name, version)
        if key in self._stock.loaded:
            return self._stock.loaded[key].served
        if self._has_failed(key):
            raise self._unavailable(key, self._stock.failed[key][1])
        task = self._on_demand.get(key)
        if task is None:
            # Looked up now: the file may be gone once the task begins.
            file = self.found[key[0]].files[key[1]]
            task = asyncio.create_task(
                self.load_on_demand(key, file, by_version=version is not None)
            )
            self._on_demand[key] = task
            task.add_done_callback(partial(self._loaded, key))
        try:
            return (await asyncio.shield(task)).served
        except StartupError as error:
            raise self._unavailable(key, str(error)) from error

    def main_version(self, name: str | None = None) -> str | None:
        """The version of a model that answers most of its requests; None if there is none."""
        weights = self.routes.get(name or self.default_name, NO_TRAFFIC).versions
        return max(weights, key=lambda version: weights[version], default=None)

    def listing(self) -> list[ModelState]:
        """Every version of every model, sorted by name, oldest version first."""
        return [
            self._state((name, version))
            for name in sorted(self.found)
            for version in self.found[name].files
        ]

    def rebuild(self) -> None:
        """Let requests find what is loaded now."""
        table: dict[tuple[str | None, str | None], ServedModel] = {}
        for (name, version), loaded in self._stock.loaded.items():
            alone = list(self.routes.get(name, NO_TRAFFIC).versions) == [version]
            for named in (name, None) if name == self.default_name else (name,):
                table[named, version] = loaded.served
                if alone:
                    table[named, None] = loaded.served
        self.ready = table

    async def load_on_demand(self, key: Key, file: ModelFile, *, by_version: bool) -> LoadedModel:
        """Load a version that a request needs, in the room of what was used least recently.

        Args:
            key: Its name and version.
            file: Its file.
            by_version: Whether the request names the version.

        Raises:
            StartupError: It cannot be served.
        """
        return await self._stock.load(key, file, on_demand=by_version, make_room=True)

    def _loaded(self, key: Key, task: "asyncio.Task[LoadedModel]") -> None:
        self._on_demand.pop(key, None)
        # The requests that waited for it may have left; the log has the error.
        if not task.cancelled():
            task.exception()

    def _resolve(self, name: str | None, version: str | None) -> Key:
        """The version of a model that is to answer a request, whether it is loaded or not."""
        named = name or self.default_name
        model = self.found.get(named)
        if model is None:
            raise ModelNotFoundError(
                f"there is no model {named!r}; there are {_listed(self.found)}"
            )
        if named in self.unloaded:
            raise self._unavailable((named, version or ""), UNLOADED)
        version = version or self._draw(named)
        if version not in model.files:
            there = _listed(model.files)
            raise ModelNotFoundError(
                f"model {named!r} has no version {version!r}; there are {there}"
            )
        return named, version

    def _draw(self, name: str) -> str:
        """One of the versions that share the requests, by their weights."""
        route, there = self.routes.get(name, NO_TRAFFIC), list(self.found[name].files)
        weights = route.versions
        if not weights:
            return ([each for each in there if each != route.shadow] or there)[-1]
        (version,) = random.choices(list(weights), list(weights.values()))  # noqa: S311
        return version

    def _state(self, key: Key) -> ModelState:
        name, version = key
        route = self.routes.get(name, NO_TRAFFIC)
        weight = route.versions.get(version, 0.0) / (sum(route.versions.values()) or 1.0)
        state, reason = self._state_and_reason(key)
        shadow, is_default = route.shadow == version, name == self.default_name
        return ModelState(name, version, state, reason, is_default, weight, shadow)

    def _state_and_reason(self, key: Key) -> tuple[State, str]:
        if key[0] in self.unloaded:
            return "UNAVAILABLE", UNLOADED
        has_failed = self._has_failed(key)
        problem = self._stock.failed[key][1] if has_failed else self.found[key[0]].problem
        if key in self._stock.loaded:
            return "READY", problem
        if key in self._stock.loading:
            return "LOADING", problem or LOADING
        if has_failed:
            return "UNAVAILABLE", problem
        return "ON_DEMAND", problem or ON_DEMAND

    def _has_failed(self, key: Key) -> bool:
        """Whether the file, as it is now, has been tried in vain."""
        failed = self._stock.failed.get(key)
        return failed is not None and failed[0] == self.found[key[0]].files[key[1]].signature()

    def _unavailable(self, key: Key, reason: str) -> ModelLoadError:
        name, version = key
        named = f"model {name!r}" + (f" version {version!r}" if version else "")
        return ModelLoadError(f"{named} is not available: {reason}", retry_after_s=1)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
