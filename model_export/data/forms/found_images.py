"""Image files, found under the names that annotation tools write for them."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from model_export.errors import ModelExportError

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .avif .tif .tiff .heic .heif".split()
)
# Folders of previews and of files' attributes, which systems put beside the pictures.
SYSTEM_FOLDERS: Final = frozenset({"@eaDir", "__MACOSX"})


def image_files(folder: Path, *, deep: bool = False) -> list[Path]:
    """The image files in a folder by their suffix, sorted; hidden ones are left out.

    Args:
        folder: Where to look.
        deep: Whether to look in its folders too.
    """
    return files_in(folder, IMAGE_SUFFIXES, deep=deep)


def files_in(folder: Path, suffixes: Collection[str], *, deep: bool = False) -> list[Path]:
    """The files in a folder by their suffix, sorted; hidden files and folders are left out.

    Args:
        folder: Where to look.
        suffixes: In lower case; a file's may be in any.
        deep: Whether to look in its folders too, also where a link leads.
    """
    places = _folders_below(folder) if deep else [folder]
    return sorted(
        path
        for place in places
        for path in _files(place)
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def _folders_below(folder: Path) -> Iterator[Path]:
    """A folder and those in it, each once, whatever leads there."""
    seen = set[str]()
    for place, folders, _ in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS
        ]
        yield Path(place)


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            # A link that leads nowhere counts, and is refused as a missing file.
            yield from (folder / entry.name for entry in entries if not entry.is_dir())


def similar_files(folder: Path) -> Mapping[str, list[Path]]:
    """The files of a folder by their names as `plain_file_name` gives them."""
    listed = defaultdict(list)
    for path in sorted(_files(folder)):
        listed[plain_file_name(path.name)].append(path)
    return listed


def plain_file_name(name: str) -> str:
    """A name in one case, and accents as parts of their letters, which macOS writes apart."""
    return unicodedata.normalize("NFC", name).casefold()


class ImageFinder:
    """Finds image files by written names, which may come from another machine.

    Args:
        roots: The folders that names may be relative to, the likeliest first.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._listed = cache(_listing)
        self._names = cache(_names)
        self._places = cache(self._existing_places)
        # The files that were found, by the names as written.
        self._found = dict[str, Path]()
        # The first name that led to a file, its folders in one case, and how many were left out.
        self._first = dict[Path, tuple[str, str, int]]()
        # Names in different folders that lead to one file, because some folders were left out.
        self._merged = list[tuple[str, str, Path]]()
        # The folders that were left out of names which kept others, with one such name.
        self._left_out = dict[tuple[str, ...], str]()
        # Names that kept none of their folders: these, and the file.
        self._alone = dict[str, tuple[tuple[str, ...], Path]]()

    def find(self, written: str) -> Path:
        """The image that a name stands for.

        Names with backslashes, `%20`, folders of another machine, another case, or without a suffix
        are understood, if the name as written is not a file.

        Args:
            written: The name, or a path.

        Returns:
            The file; a path that does not exist if there is none.

        Raises:
            ModelExportError: Two files fit a name without a suffix.
        """
        if written not in self._found:
            self._found[written] = self._find(written)
        return self._found[written]

    def _find(self, written: str) -> Path:
        variants = list(_variants(written))
        for look in (self._file, self._similar):
            for name in map(PurePosixPath, variants):
                for folder, left_out in self._places(str(name.parent)):
                    if found := look(folder, name.name):
                        self._note(written, _parts(name), left_out, found)
                        return found
        return self._roots[0] / written

    def refuse_strays(self) -> None:
        """See that no image was found by its name alone while others are in their folders.

        A name whose folders lead nowhere may come from another machine, and so do all of them then.
        Otherwise a file of that name elsewhere is likely another picture. It surely is one where
        two names lead to it.

        Raises:
            ModelExportError: Some were.
        """
        for first, second, file in self._merged[:1]:
            raise ModelExportError(
                f"{first} and {second} would both be {file}, because their folders are not there; "
                "put the images into these folders, or correct the names"
            )
        if not self._left_out:
            return
        strays = {
            name: file
            for name, (folders, file) in self._alone.items()
            if folders not in self._left_out
        }
        for name, file in strays.items():
            more = f", like {len(strays) - 1} more" if len(strays) > 1 else ""
            raise ModelExportError(
                f"{name} is missing{more}, and {file} may be another picture, because "
                f"{next(iter(self._left_out.values()))} lies in the folder of its name; put "
                "missing images into their folders, or correct the names"
            )

    def _note(
        self, written: str, parts: tuple[str, ...], left_out: tuple[str, ...], found: Path
    ) -> None:
        folders = parts[:-1]
        plain = plain_file_name("/".join(folders))
        before, name, count = self._first.setdefault(found, (plain, written, len(left_out)))
        if before != plain and (left_out or count):
            self._merged.append((name, written, found))
        if folders and left_out == folders:
            self._alone[written] = folders, found
        elif folders:
            self._left_out.setdefault(left_out, written)

    def _existing_places(self, parent: str) -> list[tuple[Path, tuple[str, ...]]]:
        """Folders from all of a name's folders down to none of them, and those left out."""
        parts = _parts(PurePosixPath(parent))
        places: dict[Path, tuple[str, ...]] = {root / parent: () for root in self._roots}
        for start in range(len(parts) + 1):
            for root in self._roots:
                places.setdefault(root.joinpath(*parts[start:]), parts[:start])
        return [(place, left_out) for place, left_out in places.items() if _is_folder(place)]

    def _file(self, folder: Path, name: str) -> Path | None:
        if name not in self._names(folder):
            return None
        return path if (path := folder / name).is_file() else None

    def _similar(self, folder: Path, name: str) -> Path | None:
        """The file in a folder whose name differs only in case, or has a suffix."""
        listed = self._listed(folder)
        plain = plain_file_name(name)
        for key in (plain, f"{plain}."):
            if len(files := listed.get(key, ())) > 1:
                names = " and ".join(file.name for file in files)
                raise ModelExportError(
                    f"{folder} has two images for the name {name}: {names}; remove or rename one, "
                    "or write the suffix in the annotations"
                )
            if files:
                return files[0]
        return None


def _parts(name: PurePosixPath) -> tuple[str, ...]:
    return tuple(part for part in name.parts if part not in ("/", ".."))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or with a character that no name can have
        return False


def _names(folder: Path) -> frozenset[str]:
    return frozenset(entry.name for entry in os.scandir(folder))


def _variants(written: str) -> Iterator[str]:
    yield written
    plain = written.strip().replace("\\", "/").removeprefix("file://")
    yield plain
    if "://" in plain:
        plain = plain.partition("?")[0]
        yield plain
    if "%" in plain:
        yield unquote(plain)


def _listing(folder: Path) -> Mapping[str, list[Path]]:
    """Files by their names in one case, and by their names up to the dot of the suffix."""
    listed = defaultdict(list)
    for path in image_files(folder):
        listed[plain_file_name(path.name)].append(path)
        listed[f"{plain_file_name(path.stem)}."].append(path)
    return listed
