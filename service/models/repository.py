"""A folder of models in the layout `NAME/VERSION/model.onnx`, which Triton and OVMS use as well."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.core.model_digest import external_files, model_digest
from service.errors import StartupError

MODEL_FILE: Final = "model.onnx"
TRAFFIC_FILE: Final = "traffic.json"

log = structlog.get_logger(__name__)

# Where a file stood when it was last looked at: path, inode, size and time of change.
Standing = tuple[str, int, int, int]
# The same of an ONNX file and of the files beside it that hold its weights.
Signature = tuple[Standing, ...]


class Traffic(BaseModel):
    """`traffic.json`: which versions share the requests that name none, and which one shadows.

    Attributes:
        versions: The weight of each version; weights need not add up to anything.
        shadow: A version that sees a sample of the images, and whose answers are only compared.
        shadow_share: The part of the images that it is to see.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: dict[str, float] = Field(default_factory=dict)
    shadow: str | None = None
    shadow_share: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _weights_are_positive(self) -> "Traffic":
        bad = [version for version, weight in self.versions.items() if not 0 < weight < 1e9]
        if bad:
            raise ValueError(f"the weight of version {bad[0]} must be above 0")
        return self


NO_TRAFFIC: Final = Traffic()


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
        traffic: Which of them share the requests.
        problem: Why the traffic file cannot be used, else empty.
    """

    files: dict[str, ModelFile] = field(default_factory=dict)
    traffic: Traffic = NO_TRAFFIC
    problem: str = ""


def scan(folder: Path) -> dict[str, RepositoryModel]:
    """The models of a repository by name; a folder without a numbered version is none.

    Raises:
        StartupError: The folder cannot be read.
    """
    try:
        folders = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        found = {entry.name: _read_model(entry) for entry in folders if entry.is_dir()}
    except OSError as error:
        raise StartupError(
            f"cannot read the model repository {folder}: {error.strerror}"
        ) from error
    return {name: model for name, model in found.items() if model.files}


def _read_model(folder: Path) -> RepositoryModel:
    try:
        numbered = [entry for entry in folder.iterdir() if entry.name.isascii()]
    except OSError as error:
        # Such as the `lost+found` of a volume, or a folder that has just been removed.
        _note_unreadable(folder, error.strerror)
        return RepositoryModel()
    versions = sorted((entry.name for entry in numbered if entry.name.isdigit()), key=int)
    files = {
        version: ModelFile(folder / version / MODEL_FILE, folder.name, version)
        for version in versions
        if (folder / version / MODEL_FILE).is_file()
    }
    try:
        traffic = _read_traffic(folder / TRAFFIC_FILE, list(files))
    except (OSError, ValueError) as error:
        return RepositoryModel(files, NO_TRAFFIC, f"{folder / TRAFFIC_FILE}: {_told(error)}")
    return RepositoryModel(files, traffic)


@lru_cache
def _note_unreadable(folder: Path, reason: str) -> None:
    """Log that a folder is left out: once, for the repository is read again and again."""
    log.warning("a folder of the model repository is left out", folder=str(folder), reason=reason)


def _read_traffic(file: Path, versions: Sequence[str]) -> Traffic:
    if not file.exists():
        return NO_TRAFFIC
    traffic = Traffic.model_validate(json.loads(file.read_text(encoding="utf-8")))
    named = {*traffic.versions, *([traffic.shadow] if traffic.shadow else [])}
    missing = sorted(named - set(versions))
    if missing:
        raise ValueError(f"there is no version {missing[0]}; there are {', '.join(versions)}")
    return traffic


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


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
