"""Image files, found under the names that annotation tools write for them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

from model_export.errors import ModelExportError

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .webp .avif .tif .tiff".split()
)


def image_files(folder: Path, *, deep: bool = False) -> list[Path]:
    """The image files in a folder by their suffix, sorted; hidden files are left out.

    Args:
        folder: Where to look.
        deep: Whether to look in its folders too.
    """
    files = folder.rglob("*") if deep else folder.glob("*")
    return sorted(
        path
        for path in files
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


class ImageFinder:
    """Finds image files by written names, which may come from another machine.

    Args:
        roots: The folders that names may be relative to, the likeliest first.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._listed = cache(_listing)
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
        variants = list(_variants(written))
        for look in (_file, self._similar):
            for name in variants:
                for path, left_out in self._candidates(name):
                    if found := look(path):
                        self._note(written, _parts(name)[:-1], left_out, found)
                        return found
        return self._roots[0] / written

    def refuse_strays(self) -> None:
        """See that no image was found by its name alone while others are in their folders.

        A name whose folders lead nowhere may come from another machine, and so do all of them then.
        Otherwise a file of that name elsewhere is likely another picture.

        Raises:
            ModelExportError: Some were.
        """
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
        self, written: str, folders: tuple[str, ...], left_out: tuple[str, ...], found: Path
    ) -> None:
        if folders and left_out == folders:
            self._alone[written] = folders, found
        elif folders:
            self._left_out.setdefault(left_out, written)

    def _candidates(self, name: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Paths from all of the name's folders down to none of them, and those left out."""
        parts = _parts(name)
        yield from ((root / name, ()) for root in self._roots)
        for start in range(len(parts)):
            rest = Path(*parts[start:])
            yield from ((root / rest, parts[:start]) for root in self._roots)

    def _similar(self, path: Path) -> Path | None:
        """The file in the same folder whose name differs only in case, or has a suffix."""
        listed = self._listed(path.parent)
        for key in (_key(path.name), f"{_key(path.name)}."):
            if len(files := listed.get(key, ())) > 1:
                names = " and ".join(file.name for file in files)
                raise ModelExportError(
                    f"{path.parent} has two images for the name {path.name}: {names}; remove or "
                    "rename one, or write the suffix in the annotations"
                )
            if files:
                return files[0]
        return None


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _file(path: Path) -> Path | None:
    try:
        return path if path.is_file() else None
    except (OSError, ValueError):  # too long, or with a character that no name can have
        return None


def _variants(written: str) -> Iterator[str]:
    yield written
    plain = written.strip().replace("\\", "/").removeprefix("file://")
    yield plain
    if "%" in plain:
        yield unquote(plain)


def _listing(folder: Path) -> Mapping[str, list[Path]]:
    """Files by their names in one case, and by their names up to the dot of the suffix."""
    listed = defaultdict(list)
    if folder.is_dir():
        for path in image_files(folder):
            listed[_key(path.name)].append(path)
            listed[f"{_key(path.stem)}."].append(path)
    return listed


def _key(name: str) -> str:
    # Tools on macOS write accents as characters of their own.
    return unicodedata.normalize("NFC", name).casefold()
