"""A folder of models in the layout `NAME/VERSION/model.onnx`, which Triton and OVMS use as well."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from service.core.model_digest import external_files, model_digest
from service.errors import StartupError
from service.models.folder.layout import MODEL_FILE, read_layout
from service.models.folder.traffic import NO_TRAFFIC, TRAFFIC_FILE, Traffic, read_traffic

# Where a file stood when it was last looked at: path, inode, size and time of change.
Standing = tuple[str, int, int, int]
# The same of an ONNX file and of the files beside it that hold its weights.
Signature = tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where one version of a model lies.

    Attributes:
        path: The ONNX file.
        name: The name that requests use; None for the contract's.
        version: Likewise.
    """

    path: Path
    name: str | None = None
    version: str | None = None

    @property
    def place(self) -> str:
        """The file as processes of one server name it to each other."""
        return str(self.path)

    def signature(self) -> Signature:
        """Facts that change when the file, or weights beside it, are replaced; empty without it."""
        own = _standing(self.path)
        try:
            names = _weights_of(own) if own else ()
        except OSError:
            return ()
        beside = (_standing(self.path.parent / name) for name in names)
        return tuple(each for each in (own, *beside) if each)

    def digest(self) -> str:
        """SHA-256 of the model.

        Raises:
            StartupError: The file cannot be read.
        """
        try:
            return model_digest(self.path)
        except OSError as error:
            raise StartupError(
                f"cannot read the model file {self.path}: {error.strerror}"
            ) from error


@dataclass(frozen=True, slots=True)
class RepositoryModel:
    """One model of a repository.

    Attributes:
        files: The file of each version, in ascending order of the versions.
        traffic: Which of them share the requests; None if the traffic file cannot be understood.
        problem: The fault of the traffic file, else empty.
    """

    files: dict[str, ModelFile] = field(default_factory=dict)
    traffic: Traffic | None = NO_TRAFFIC
    problem: str = ""

    def only(self, versions: Collection[str]) -> "RepositoryModel":
        """The same with no other versions than these."""
        files = {each: file for each, file in self.files.items() if each in versions}
        return RepositoryModel(files, self.traffic, self.problem)

    def by_choice(self) -> list[ModelFile]:
        """The files of the versions that may serve, in the order in which a start tries them."""
        return [self.files[each] for each in (self.traffic or NO_TRAFFIC).by_choice([*self.files])]


@dataclass(frozen=True, slots=True)
class Scan:
    """The content of a repository.

    Attributes:
        models: The models by name; each has a version at least.
        faults: A sentence for each part that is left out, with what mends it.
    """

    models: dict[str, RepositoryModel]
    faults: list[str]


def scan(folder: Path, before: Mapping[str, RepositoryModel] | None = None) -> Scan:
    """Look at a repository.

    Args:
        folder: The repository.
        before: The models of the last look; what cannot be read now stays as it was then.

    Raises:
        StartupError: The folder cannot be read.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise StartupError(
            f"cannot read the model repository {folder}: {error.strerror}"
        ) from error
    found, faults = dict[str, RepositoryModel](), list[str]()
    for entry in entries:
        model = _read_model(entry, (before or {}).get(entry.name, RepositoryModel()), faults)
        if model.files:
            found[entry.name] = model
    return Scan(found, faults)


def candidates(
    folder: Path, name: str | None, seen: Mapping[str, Collection[str]]
) -> list[ModelFile]:
    """The versions of one model that may serve when the server starts, the best first.

    Args:
        folder: The repository.
        name: The model's name; None for the first by name.
        seen: The versions that may be taken, of the models for which it has any.

    Raises:
        StartupError: The repository holds no model, or not this one.
    """
    looked = scan(folder)
    if not looked.models:
        mended = looked.faults[:1] or [f"put one at NAME/1/{MODEL_FILE}"]
        raise StartupError(
            f"{folder} holds no model in the layout NAME/1/{MODEL_FILE}; {mended[0]}"
        )
    name = name or next(iter(looked.models))
    if name not in looked.models:
        there = ", ".join(looked.models)
        raise StartupError(f"there is no model {name!r} in {folder}; there are {there}")
    model = looked.models[name]
    return model.only(seen.get(name, model.files)).by_choice() or model.by_choice()


def _read_model(folder: Path, before: RepositoryModel, faults: list[str]) -> RepositoryModel:
    layout = read_layout(folder, before.files)
    faults += layout.faults
    if not layout.is_readable:
        return before
    files = {
        each: ModelFile(folder / each / MODEL_FILE, folder.name, each) for each in layout.versions
    }
    return RepositoryModel(files, *read_traffic(folder / TRAFFIC_FILE, list(files)))


def _standing(file: Path) -> Standing | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _weights_of(own: Standing) -> tuple[str, ...]:
    """The files beside an ONNX file that hold its weights; it is read once, until it changes."""
    return tuple(external_files(Path(own[0]).read_bytes()))
