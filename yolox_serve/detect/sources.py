"""From the words of the command line to images and videos."""

import glob
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

IMAGE_SUFFIXES: Final = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .bmp .tif .tiff .avif .heic .heif".split()
)
VIDEO_SUFFIXES: Final = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .ts .wmv .flv .mjpeg".split()
)
STREAMS: Final = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://")
STANDARD_INPUT: Final = "-"


class SourceError(Exception):
    """A source is not there, or the sources do not go with an option; the message says which."""


@dataclass(frozen=True, slots=True)
class Still:
    """An image file.

    Attributes:
        path: Where it is.
        name: Its name in results.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Video:
    """A video file, a camera or a stream.

    Attributes:
        address: A path, the number of a camera, or the address of a stream.
        name: Its name in results.
        live: Whether it has no end of its own.
    """

    address: str | int
    name: str
    live: bool


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything to look into, in order."""

    stills: list[Still]
    videos: list[Video]


def find_sources(words: Sequence[str], standard_input: Iterable[str]) -> Sources:
    """The images and videos that words name.

    Images of a single folder are named by their path in it, and files with absolute paths by their
    path in the folder that holds them all; others are named as they are given. Each file counts
    once.

    Args:
        words: Files, folders, patterns, numbers of cameras, addresses of streams, and `-`.
        standard_input: Lines that stand for `-`, each a file, a folder or a pattern.

    Raises:
        SourceError: A word names nothing.
    """
    listed = [line.strip() for line in standard_input] if STANDARD_INPUT in words else []
    names = [
        name
        for word in words
        for name in (filter(None, listed) if word == STANDARD_INPUT else [word])
    ]
    videos = [_stream(name) for name in names if _is_stream(name)]
    files = dict.fromkeys(
        path for name in names if not _is_stream(name) for path in _files_of(name)
    )
    root = Path(names[0]) if len(names) == 1 and Path(names[0]).is_dir() else _root_of(files)
    stills = [Still(path, _name(path, root)) for path in files if not _is_video(path)]
    found = [Video(str(path), _name(path, root), live=False) for path in files if _is_video(path)]
    if not stills and not found and not videos:
        raise SourceError("there is nothing to look into: the list is empty")
    return Sources(stills, [*found, *videos])


def _is_stream(name: str) -> bool:
    camera = name.isdecimal() and not Path(name).exists()
    return camera or name.lower().startswith(STREAMS)


def _stream(name: str) -> Video:
    if name.isdecimal():
        return Video(int(name), f"camera-{name}", live=True)
    # An address may hold a password.
    return Video(name, name.partition("://")[2].rpartition("@")[2], live=True)


def _files_of(name: str) -> list[Path]:
    """The files of a path or a pattern; of folders, the images and videos in all their folders."""
    path = Path(name)
    if path.is_dir():
        found = _below(path)
        if not found:
            raise SourceError(f"the folder {name} holds no images or videos")
        return found
    if path.exists():
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 - absolute patterns, too
    found = [
        each
        for match in matches
        for each in (_below(match) if match.is_dir() else [match] if _is_known(match) else [])
    ]
    if found:
        return found
    if glob.has_magic(name):
        raise SourceError(f"no image or video matches {name}")
    # Skipped with its reason like any file that cannot be read: a list may be a little out of date.
    return [path]


def _below(folder: Path) -> list[Path]:
    """The images and videos in a folder and its folders; hidden ones are caches or leftovers.

    A link to nowhere counts, so that the run says what is missing.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if _is_known(path)
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _root_of(files: Collection[Path]) -> Path | None:
    """The folder that holds all files, if their paths are absolute."""
    if not files or not all(path.is_absolute() for path in files):
        return None
    return Path(os.path.commonpath([path.parent for path in files]))


def _name(path: Path, root: Path | None) -> str:
    return (path if root is None else path.relative_to(root)).as_posix()
