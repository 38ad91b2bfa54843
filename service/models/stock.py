"""The loaded models: loading aside, a bound on their number, and giving their memory back."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from service.engine.base import Engine
from service.errors import StartupError
from service.heap import give_back_free_heap
from service.models.proof import prove
from service.models.repository import ModelFile, Signature
from service.models.served import ServedModel
from service.observe.metrics import Metrics
from service.pipeline.shared import SharedPipeline

LOOK_S: Final = 0.05
# A request may hold the old version so long; a load that needs its room does not wait longer.
MAX_RELEASE_S: Final = 15.0

Key = tuple[str, str]  # name and version
Failure = tuple[Signature, str]  # the file that cannot be served, and why

log = structlog.get_logger(__name__)


class Serve(Protocol):
    """Makes a loaded engine a model that answers requests."""

    def __call__(
        self, engine: Engine, name: str | None = None, version: str | None = None
    ) -> ServedModel:
        """All that answers a request for it."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model that answers requests, and the file that it was loaded from.

    Attributes:
        served: The model.
        file: Its file.
        signature: The file's, from before it was read.
        digest: SHA-256 of the model.
        on_demand: Whether a request by version loaded it, so that no change of versions unloads it.
    """

    served: ServedModel
    file: ModelFile
    signature: Signature
    digest: str
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class _Opened:
    engine: Engine
    signature: Signature
    digest: str


class Stock:
    """The models that are loaded. Everything but the loading itself happens on the event loop.

    Args:
        open_engine: Loads and warms a model file; called on a thread.
        serve: Makes the engine a model that answers requests.
        pipeline: The pipeline of all models.
        metrics: Where to count.
        warm_rest: Warms the other input sizes of an engine, while requests are served.
        limit: Most models that are loaded at once; None for no bound.

    Attributes:
        pipeline: The same.
        loaded: The models, by name and version.
        failed: Why a file cannot be served, and the signature of that file.
        loading: The versions that are being loaded.
        on_change: Called when the loaded models have become others.
    """

    def __init__(
        self,
        open_engine: Callable[[Path], Engine],
        serve: Serve,
        pipeline: SharedPipeline,
        metrics: Metrics,
        warm_rest: Callable[[Engine], Awaitable[None]],
        limit: int | None = None,
    ) -> None:
        self._open_engine = open_engine
        self._serve = serve
        self.pipeline = pipeline
        self._metrics = metrics
        self._limit = limit
        self._one_at_a_time = asyncio.Lock()
        self._warm_rest = warm_rest
        self._tasks: set[asyncio.Task[None]] = set()
        self.loaded: dict[Key, LoadedModel] = {}
        self.failed: dict[Key, Failure] = {}
        self.loading: set[Key] = set()
        # Versions that have a series of failed loads.
        self._told_failed: set[Key] = set()
        self.on_change: Callable[[], None] = lambda: None

    @property
    def is_full(self) -> bool:
        """Whether another model would need the room of one that is loaded."""
        return self._limit is not None and len(self.loaded) >= self._limit

    async def load(
        self,
        key: Key,
        file: ModelFile,
        replaced: LoadedModel | None = None,
        *,
        on_demand: bool = False,
        make_room: bool = False,
    ) -> LoadedModel:
        """Load a version aside, and have it take the place of the one with its name, if any.

        A version that another caller has loaded meanwhile is not loaded a second time, and a file
        that has failed is tried again only once it is another, or after `forget_failures`.

        Args:
            key: Its name and version; those of the contract may replace them.
            file: Its file.
            replaced: The loaded model that this file is to replace.
            on_demand: Whether a request asked for this version.
            make_room: Whether what was used least recently is unloaded first, where there is no
                room.

        Raises:
            StartupError: It cannot be served. The version that was loaded before stays.
        """
        self.loading.add(key)
        try:
            async with self._one_at_a_time:
                there = self.loaded.get(key)
                if there is not None and there is not replaced:
                    return there
                self._raise_again(key, file)
                if make_room and key not in self.loaded:
                    await self._make_room()
                opened = await self._opened(key, file)
                return self._admit(key, file, opened, on_demand=on_demand)
        finally:
            self.loading.discard(key)

    def _raise_again(self, key: Key, file: ModelFile) -> None:
        """See that the file has not failed since the caller found it worth a try."""
        failed = self.failed.get(key)
        if failed is not None and failed[0] == file.signature():
            raise StartupError(failed[1])

    async def _opened(self, key: Key, file: ModelFile) -> _Opened:
        try:
            return await asyncio.to_thread(self._open, file)
        except StartupError as error:
            self.failed[key] = (file.signature(), str(error))
            self._told_failed.add(key)
            self._metrics.model_loads.labels("failed", *key).inc()
            log.error("a model cannot be served", file=str(file.path), cause=str(error))  # noqa: TRY400
            raise

    def confirm(self, key: Key, signature: Signature) -> None:
        """Note that a file is what was loaded, whatever it was in between."""
        self.failed.pop(key, None)
        self.loaded[key] = replace(self.loaded[key], signature=signature)

    def admit_first(self, served: ServedModel, file: ModelFile | None) -> None:
        """Take in the model that was loaded before the event loop ran."""
        key = (served.name, served.version)
        if file is None:
            self.loaded[key] = LoadedModel(served, ModelFile(Path()), (), "")
        else:
            self.loaded[key] = LoadedModel(served, file, file.signature(), file.digest())
        self._metrics.model_loads.labels("ok", *key).inc()

    def forget_failures(self, name: str) -> None:
        """Have the files of a model tried again, though they are the same."""
        for key in [key for key in self.failed if key[0] == name]:
            del self.failed[key]

    def forget_failures_but(self, there: set[Key]) -> None:
        """Forget the failures of files that are gone, and their series."""
        for key in self.failed.keys() - there:
            del self.failed[key]
        for key in self._told_failed - there - self.loaded.keys():
            self._told_failed.discard(key)
            self._metrics.forget_model(*key)

    async def _make_room(self) -> None:
        """Unload what was used least recently until there is room for one more."""
        while self.is_full:
            key = min(self.loaded, key=lambda each: _last_used(self.loaded[each].served))
            await self.drop(key)

    def drop(self, key: Key) -> "asyncio.Task[None]":
        """Let a version answer no new request; the task ends when its memory is given back."""
        old = self.loaded.pop(key)
        self.on_change()
        return self._release(old.served)

    def warm(self, served: ServedModel) -> None:
        """Warm what the first requests of a model need not wait for."""
        self._keep(asyncio.create_task(self._warmed(served.engine)))

    async def stop(self) -> None:
        """Wait for no release and no warming any more; the server stops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _warmed(self, engine: Engine) -> None:
        await self._warm_rest(engine)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _admit(self, key: Key, file: ModelFile, opened: _Opened, *, on_demand: bool) -> LoadedModel:
        served = self._serve(opened.engine, file.name, file.version)
        served.detector.model.queued.last_success = time.monotonic()
        loaded = LoadedModel(served, file, opened.signature, opened.digest, on_demand)
        new_key = (served.name, served.version)
        old = self.loaded.get(new_key)
        self.loaded[new_key] = loaded
        self.on_change()
        self.failed.pop(key, None)
        self._metrics.model_loads.labels("ok", *new_key).inc()
        log.info("model loaded", name=served.name, version=served.version, file=str(file.path))
        self.warm(served)
        if old is not None:
            self._release(old.served)
        return loaded

    def _open(self, file: ModelFile) -> _Opened:
        signature, digest = file.signature(), file.digest()
        engine = self._open_engine(file.path)
        prove(engine, str(file.path))
        if file.digest() != digest:
            raise StartupError(f"{file.path} changed while it was loaded")
        return _Opened(engine, signature, digest)

    def _release(self, served: ServedModel) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._released(_Leaving(served)))
        self._keep(task)
        return task

    async def _released(self, leaving: "_Leaving") -> None:
        """Wait until no request holds the model, then drop its engine on a thread."""
        ends = time.monotonic() + MAX_RELEASE_S
        # Nothing tells when the last reference goes.
        while leaving.is_held() and time.monotonic() < ends:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        if leaving.key not in self.loaded:
            self._metrics.forget_model(*leaving.key)
        await asyncio.to_thread(leaving.drop)
        log.info("model unloaded", name=leaving.key[0], version=leaving.key[1])


class _Leaving:
    """A model that answers no new request.

    The engine is held here until the requests have ended, so that a thread and not the event loop
    takes it apart.
    """

    def __init__(self, served: ServedModel) -> None:
        served.detector.on_found = None
        self.key = (served.name, served.version)
        self._held = weakref.ref(served), weakref.ref(served.detector.model)
        self._engine: list[Engine] = [served.engine]

    def is_held(self) -> bool:
        """Whether a request, or an image of one, still needs the model."""
        return any(held() is not None for held in self._held)

    def drop(self) -> None:
        """Give the memory back."""
        self._engine.clear()
        give_back_free_heap()


def _last_used(served: ServedModel) -> float:
    return served.detector.model.queued.last_used
