"""The names that people give to the parts of a data set."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from model_export.errors import ModelExportError

SPLIT_NAMES: Final = (
    ("train", "training"),
    ("val", "valid", "validation", "dev", "eval"),
    ("test", "testing"),
)


class NoSplitError(ModelExportError):
    """A data set does not have a split.

    Args:
        fact: The split that it lacks, and those that it has.
        cure: The way out in a training.
    """

    def __init__(self, fact: str, cure: str) -> None:
        super().__init__(f"{fact}: {cure}")
        self.fact = fact


class MissingFolderError(ModelExportError):
    """The folder or list that a data set names for a split is not there."""


def names_of(split: str) -> tuple[str, ...]:
    """The split's own name first, then what other tools call it."""
    synonyms = next((names for names in SPLIT_NAMES if split.lower() in names), ())
    return (split, *(name for name in synonyms if name != split))


def is_of_split(name: str, split: str) -> bool:
    """Whether a name is a split's, or begins with one, such as `val2017` or `test_labels`."""
    plain = name.lower().removeprefix("instances_")
    return any(
        plain == each or plain.startswith((f"{each}_", f"{each}-", f"{each}2"))
        for each in names_of(split)
    )


def is_of_another(name: str, split: str) -> bool:
    """Whether a name is one of another split's."""
    others = (names[0] for names in SPLIT_NAMES if names[0] not in names_of(split))
    return any(is_of_split(name, other) for other in others)


def is_all_for_training(file: Path, folder: Path, split: str) -> bool:
    """Whether a data set's only file is meant by the split for training: no other is its name's.

    Args:
        file: The file.
        folder: The data set.
        split: The split that is asked for.
    """
    parts = file.relative_to(folder).with_suffix("").parts
    return "train" in names_of(split) and not any(is_of_another(part, split) for part in parts)


def subfolder(root: Path, name: str) -> Path | None:
    """The folder of a name in another one, in this case or in any."""
    if (exact := root / name).is_dir():
        return exact
    if not root.is_dir():
        return None
    return next((path for path in _folders(root) if path.name.lower() == name.lower()), None)


def existing_path(root: Path, parts: Sequence[str]) -> Path | None:
    """The file or folder at a path below a folder, in any case."""
    if (exact := root.joinpath(*parts)).exists():
        return exact
    place: Path | None = root
    for part in parts:
        place = subfolder(place, part) if place else None
    return place if parts else None


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split in a data set, in any case and under any of its usual names."""
    folders = {path.name.lower(): path for path in _folders(root)}
    named = (folders.get(name.lower()) for name in names_of(split))
    return next((folder for folder in named if folder), None)


def split_folders(root: Path) -> list[Path]:
    """The folders of a data set that are named like splits."""
    found = (split_folder(root, names[0]) for names in SPLIT_NAMES)
    return [folder for folder in found if folder]


def folder_of_split(root: Path, split: str) -> Path:
    """The folder with the files of a split; a data set without such folders is all for training.

    Raises:
        NoSplitError: The split does not exist.
    """
    if folder := split_folder(root, split):
        return folder
    others = split_folders(root)
    if others or "train" not in names_of(split):
        raise no_split(root, split, [folder.name for folder in others])
    return root


def no_split(source: Path, split: str, others: Iterable[str] = ()) -> NoSplitError:
    """The error for a split that a data set does not have."""
    listed = ", ".join(others)
    has = f" (it has {listed})" if listed else ""
    if "val" in names_of(split):
        cure = "name one with --val-split, add --val with another data set, or hold out a fifth of "
        cure += "the training images with --val 0.2"
    else:
        cure = "name one with --split, or rename the folder or list"
    return NoSplitError(f"{source} has no split {split}{has}", cure)


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())
