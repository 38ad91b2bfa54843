"""The layout `NAME/VERSION/model.onnx`: the versions in a model's folder, and mistakes in it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

MODEL_FILE: Final = "model.onnx"


@dataclass(slots=True)
class Layout:
    """The content of a model's folder.

    Attributes:
        versions: The versions, in ascending order.
        faults: A sentence for each part that is left out, with what mends it.
        is_readable: Whether the folder could be read.
    """

    versions: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    is_readable: bool = True


def read_layout(folder: Path, known: Collection[str]) -> Layout:
    """Find the versions in a model's folder.

    Args:
        folder: The folder, or another entry of a repository, in which no version is found.
        known: The versions of the last look; those that cannot be read now are still there.
    """
    layout = Layout()
    try:
        entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except FileNotFoundError:
        layout.faults += _link_to_nothing(folder)
    except NotADirectoryError:
        layout.faults += _stray_file(folder, folder.with_suffix("") / "1")
    except OSError as error:
        layout.is_readable = False
        layout.faults.append(f"{folder} cannot be read ({error.strerror}); {_outcome(known)}")
    else:
        for entry in entries:
            _read_entry(entry, known, layout)
        if not (layout.versions or layout.faults):
            layout.faults.append(
                f"{folder} holds no version; put the model at {folder.name}/1/{MODEL_FILE}"
            )
    layout.versions.sort(key=int)
    return layout


def _read_entry(entry: Path, known: Collection[str], layout: Layout) -> None:
    is_version = entry.name.isascii() and entry.name.isdigit()
    try:
        is_folder = S_ISDIR(entry.stat().st_mode)
        fault = _fault_of_version(entry) if is_version and is_folder else None
    except FileNotFoundError:
        layout.faults += _link_to_nothing(entry)
        return
    except OSError as error:
        is_known = entry.name in known
        layout.faults.append(f"{entry} cannot be read ({error.strerror}); {_outcome(is_known)}")
        layout.versions += [entry.name] if is_known else []
        return
    if not is_folder:
        layout.faults += _stray_file(entry, entry.parent / (entry.name if is_version else "1"))
    elif not is_version:
        layout.faults.append(
            f"{entry} is no version, for a version is a whole number; if it is one, rename it, "
            f"such as to {entry.parent.name}/{_digits(entry.name) or 1}"
        )
    elif fault:
        layout.faults.append(fault)
    else:
        layout.versions.append(entry.name)


def _fault_of_version(folder: Path) -> str:
    """Why the folder of a version holds no model; empty if it holds one.

    Raises:
        OSError: It cannot be read.
    """
    file = folder / MODEL_FILE
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        if file.is_symlink():
            return _link_to_nothing(file)[0]
        others = sorted(each.name for each in folder.glob("*.onnx"))
        rename = f"rename {others[0]}" if others else "put the model there"
        return f"{folder} holds no {MODEL_FILE}; {rename}, or remove the folder"
    if S_ISREG(mode):
        return ""
    kind = "a folder" if S_ISDIR(mode) else "no regular file"
    return f"{file} is {kind}; it must be the ONNX file itself"


def _stray_file(file: Path, version: Path) -> list[str]:
    """The fault of an ONNX file that lies too high, or of a file in the place of a version."""
    if file.suffix != ".onnx" and file != version:
        return []
    place = Path(version.parent.name, version.name, MODEL_FILE)
    return [f"{file} is not in the folder of a version; put it there, such as at {place}"]


def _link_to_nothing(path: Path) -> list[str]:
    """The fault of a link whose target is missing; none where something was just removed."""
    if not path.is_symlink():
        return []
    return [f"{path} is a link to nothing ({path.readlink()}); put the model there, or remove it"]


def _outcome(is_known: object) -> str:
    return "what was loaded from it stays" if is_known else "it is left out"


def _digits(name: str) -> str:
    return "".join(each for each in name if each in "0123456789")
