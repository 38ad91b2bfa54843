"""A catalog that follows its files: new versions, replaced files, calls to load and unload."""

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from service.errors import ModelInUseError, ModelNotFoundError, StartupError
from service.models.catalog import Catalog
from service.models.files import FaultLog, FileWatch
from service.models.folder.traffic import NO_TRAFFIC, Traffic
from service.models.proof import change_of_classes
from service.models.repository import ModelFile, RepositoryModel, scan
from service.models.served import ServedModel
from service.models.shadow import Shadow
from service.models.shared_state import SharedState, StateFile
from service.models.stock import Key, LoadedModel, Stock

log = structlog.get_logger(__name__)


class Models(Catalog):
    """The models that are served, and what changes them.

    Args:
        stock: The models that are loaded: one, as yet.
        first: That one; it answers requests that name no model.
        folder: The model repository, if there is one.
        shared: The state that the processes of the server share, if it has several.
    """

    def __init__(
        self,
        stock: Stock,
        first: ServedModel,
        folder: Path | None = None,
        shared: StateFile | None = None,
    ) -> None:
        key = first.name, first.version
        file = stock.loaded[key].file
        super().__init__(stock, first.name, {first.name: RepositoryModel({first.version: file})})
        self._folder = folder
        self._shared = shared
        # The file that is served by itself, by the name and version of its contract.
        self._own: Key | None = key if file.version is None else None
        self._changing = asyncio.Lock()
        self._watch = FileWatch()
        self._faults = FaultLog()
        self.routes = {first.name: Traffic(versions={first.version: 1.0})}
        self.followed = SharedState()
        self.rebuild()

    def warm_default(self) -> None:
        """Warm what the first requests of the default model need not wait for."""
        self._stock.warm(self.default)

    async def stop(self) -> None:
        """Wait for nothing that goes on behind requests."""
        await self._stock.stop()

    async def load(self, name: str) -> None:
        """Load what is new of a model, and have it answer its requests again if it was unloaded.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelLoadError: Its newest version cannot be served; an older one serves on.
        """
        await self.refresh(load=name)
        if name not in self.found:
            raise ModelNotFoundError(f"there is no model {name!r} in the repository")
        newest = (name, list(self.found[name].files)[-1])
        if newest in self._stock.failed:
            raise self._unavailable(newest, self._stock.failed[newest][1])
        await self.get(name)

    async def unload(self, name: str) -> None:
        """Have a model answer no request until it is loaded again by a call.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelInUseError: It is the one that answers requests which name none.
        """
        if name not in self.found:
            raise ModelNotFoundError(f"there is no model {name!r}")
        if name == self.default_name:
            raise ModelInUseError(
                f"{name!r} answers the requests that name no model; to unload it, start the server "
                "with another default_model"
            )
        await self.refresh(unload=name)

    async def refresh(
        self,
        *,
        load: str | None = None,
        unload: str | None = None,
        settled_only: bool = False,
        seen_only: bool = False,
    ) -> None:
        """Look at the files, load what is new, and have what is gone answer no more requests.

        Processes of one server do so one after another.

        Args:
            load: A model to load again: one that was unloaded, or whose files have failed.
            unload: A model to unload.
            settled_only: Leave files that have changed since the last look for the next one: they
                may still be being written.
            seen_only: Leave versions that the other processes of the server have not seen.
        """
        async with self._changing:
            turn = None if self._shared is None else self._shared.turn()
            if turn is not None:
                await asyncio.to_thread(turn.__enter__)
            try:
                self._note_calls(load, unload)
                await self._refresh(settled_only=settled_only, seen_only=seen_only)
            finally:
                if turn is not None:
                    turn.__exit__(None, None, None)

    async def load_on_demand(self, key: Key, file: ModelFile, *, by_version: bool) -> LoadedModel:
        """The same as the catalog's; the other processes learn which file it was."""
        loaded = await super().load_on_demand(key, file, by_version=by_version)
        if self._shared is not None:
            await self.refresh()
        return loaded

    def _note_calls(self, load: str | None, unload: str | None) -> None:
        if self._shared is not None:
            self.unloaded = set(self._shared.read().unloaded)
        if load is not None:
            self.unloaded.discard(load)
            self._stock.forget_failures(load)
        if unload is not None:
            self.unloaded.add(unload)

    async def _refresh(self, *, settled_only: bool, seen_only: bool) -> None:
        self._watch.look(settled_only=settled_only)
        if self._own is not None:
            await self._refresh_own(self._own)
        if self._folder is not None:
            try:
                looked = await asyncio.to_thread(scan, self._folder, self.found)
            except StartupError as error:
                self._faults.stay(str(error))
                return
            self._faults.tell(looked.faults, settled_only=settled_only)
            found = looked.models
            self._take_over(self._seen(found) if seen_only else found)
            for name in sorted(found, key=lambda each: each != self.default_name):
                await self._bring_up(name)
        self._drop_the_rest()
        self._set_shadows()
        self._write_state()

    async def _refresh_own(self, key: Key) -> None:
        """Replace the file that is served by itself, by the name and version of its contract."""
        old = self._stock.loaded.get(key)
        file = self.found[key[0]].files[key[1]]
        if old is None or not self._is_new(key, file, old):
            return
        loaded = await self._try(key, file, old.served)
        if loaded is None:
            return
        name, version = loaded.served.name, loaded.served.version
        self.found.pop(key[0])
        self.routes.pop(key[0])
        self.found[name] = RepositoryModel({version: file})
        self.routes[name] = Traffic(versions={version: 1.0})
        self._own = name, version
        if self.default_name == key[0]:
            self.default_name = name
        self.rebuild()

    def _take_over(self, found: dict[str, RepositoryModel]) -> None:
        """Take what was found for what there is; the default model stays in any case."""
        kept = {self.default_name} | ({self._own[0]} if self._own else set())
        for name in kept:
            if name not in found or (self._own and name == self._own[0]):
                found[name] = self.found[name]
        for name, model in found.items():
            before = self.found.get(name)
            if model.problem and (before is None or before.problem != model.problem):
                log.error("a traffic file is wrong", problem=model.problem)
        self.found = found

    def _seen(self, found: dict[str, RepositoryModel]) -> dict[str, RepositoryModel]:
        """The part of it that the other processes have seen; all, if there are none yet."""
        seen = {} if self._shared is None else self._shared.read().seen
        return {
            name: model.only(seen[name]) for name, model in found.items() if name in seen
        } or found

    async def _bring_up(self, name: str) -> None:
        """Load the versions that are to answer requests, and those whose file was replaced."""
        if name in self.unloaded or (self._own and name == self._own[0]):
            return
        for version, file in self.found[name].files.items():
            old = self._stock.loaded.get((name, version))
            if old is not None and self._is_new((name, version), file, old):
                await self._try((name, version), file, old.served)
        while True:
            wanted = self._wanted(name)
            missing = [each for each in wanted.named if self._is_missing((name, each))]
            if not missing:
                break
            file = self.found[name].files[missing[0]]
            if not self._watch.is_settled(file):
                return
            await self._try((name, missing[0]), file, self._main(name))
        self.routes[name] = wanted
        self.rebuild()

    async def _try(self, key: Key, file: ModelFile, old: ServedModel | None) -> LoadedModel | None:
        """Load a file aside; what was loaded before serves on if that fails."""
        with suppress(StartupError):
            loaded = await self._stock.load(key, file, self._stock.loaded.get(key))
            new = loaded.served
            change = "" if old is None else change_of_classes(old.class_names, new.class_names)
            if change:
                log.warning(change, model=new.name, version=new.version)
            return loaded
        return None

    def _wanted(self, name: str) -> Traffic:
        """The traffic of a model as its files allow it: by weight, else to the newest version."""
        model = self.found[name]
        usable = [each for each in model.files if self._is_usable((name, each))]
        # A file that cannot be understood changes nothing.
        asked = model.traffic or self.routes.get(name, NO_TRAFFIC)
        return asked.among(usable)

    def _is_usable(self, key: Key) -> bool:
        return key in self._stock.loaded or not self._has_failed(key)

    def _is_missing(self, key: Key) -> bool:
        """Whether a version is to be loaded now: a new model is not, where that needs room."""
        is_known = any(name == key[0] for name, _ in self._stock.loaded)
        return key not in self._stock.loaded and (is_known or not self._stock.is_full)

    def _is_new(self, key: Key, file: ModelFile, old: LoadedModel) -> bool:
        """Whether a file is another than the one that was loaded, and worth a try."""
        signature = file.signature()
        if not signature or self._has_failed(key):
            return False
        if signature == old.signature:
            self._stock.confirm(key, signature)
            return False
        if not self._watch.is_settled(file):
            return False
        with suppress(StartupError):
            if file.digest() != old.digest:
                return True
            self._stock.confirm(key, signature)
        return False

    def _main(self, name: str) -> ServedModel | None:
        loaded = self._stock.loaded.get((name, self.main_version(name) or ""))
        return None if loaded is None else loaded.served

    def _drop_the_rest(self) -> None:
        """Unload what is gone, and the versions that others have replaced."""
        for name in [name for name in self.routes if name not in self.found]:
            del self.routes[name]
        for name in self.unloaded:
            self.routes.pop(name, None)
        for key, loaded in list(self._stock.loaded.items()):
            name, version = key
            is_there = name in self.routes and version in self.found[name].files
            if not is_there or (version not in self.routes[name].named and not loaded.on_demand):
                self._stock.drop(key)
        self._stock.forget_failures_but(
            {(name, each) for name, model in self.found.items() for each in model.files}
        )
        self.rebuild()

    def _set_shadows(self) -> None:
        """Have the shadows see what the versions beside them answer."""
        for (name, version), loaded in self._stock.loaded.items():
            route = self.routes[name]
            shadow = self._stock.loaded.get((name, route.shadow or ""))
            loaded.served.detector.on_found = None
            if shadow is not None and version in route.versions:
                share = route.shadow_share
                seen = Shadow(loaded.served, shadow.served, share, self._stock.pipeline)
                loaded.served.detector.on_found = seen.offer

    def _write_state(self) -> None:
        """Tell the other processes of the server what was found and loaded."""
        if self._shared is None:
            return
        state = self._shared.read()
        digests = {each.file.place: each.digest for each in self._stock.loaded.values()}
        state = SharedState(
            state.digests | digests,
            {name: list(model.files) for name, model in self.found.items()},
            sorted(self.unloaded),
        )
        self.followed = state
        self._shared.write(state)

    def is_behind(self) -> bool:
        """Whether another process of the server has changed models since this one last did."""
        if self._shared is None:
            return False
        state = self._shared.read()
        if state == self.followed:
            return False
        self.followed = state
        loaded = self._stock.loaded.values()
        agreed = all(state.digests.get(each.file.place) == each.digest for each in loaded)
        found = {name: list(model.files) for name, model in self.found.items()}
        return not agreed or state.seen != found or set(state.unloaded) != self.unloaded
