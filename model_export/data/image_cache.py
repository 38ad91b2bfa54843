"""A cache of decoded images, for trainings that wait for their workers."""

import hashlib
import io
import mmap
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.annotations import AnnotatedImage
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.files import replacing
from model_export.memory import amount, available_memory

# Part of every entry's name: raise it when the decoder gives other pixels for the same file.
DECODER_VERSION: Final = 2
# The length of the header that numpy writes for an image in a .npy file.
HEADER_BYTES: Final = 128
# The share of the free room that a cache may fill.
USABLE: Final = 0.9
# Linux has a file system in memory there.
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - folders in it are the user's own
RAM_PREFIX: Final = "yolox-serve-cache-"
LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Decoded images as .npy files: h * w * 3 bytes of disk each, 0.9 MB for 640 x 480.

    Files are mapped into memory, so that all workers share one copy in the system's page cache,
    which shrinks when memory is scarce. An image file that changed is decoded anew.

    Attributes:
        folder: The place of the files; it is made when needed, and may be deleted at any time.
    """

    folder: Path

    def prepare(self) -> None:
        """Make the folder, and check that files can be written there.

        Raises:
            ModelExportError: They cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ModelExportError(
                f"cannot write the cache {self.folder}: {error.strerror or error}"
            ) from error

    def refuse_too_large(self, images: Iterable[AnnotatedImage]) -> None:
        """Refuse images that would not fit in, before the first of them is written.

        Args:
            images: With their sizes.

        Raises:
            ModelExportError: The disk, or the memory, has less room than they need.
        """
        lacking = sum(
            each.size[0] * each.size[1] * 3
            for each in images
            if each.size and not self._entry(each.path).is_file()
        )
        room = shutil.disk_usage(self.folder).free
        if self.in_ram:
            room = min(room, available_memory() or room)
        if lacking > room * USABLE:
            place = "in memory; --cache DIR keeps them on disk" if self.in_ram else self.folder
            raise ModelExportError(
                f"the decoded images take {amount(lacking)}, and {amount(room)} are free {place}"
            )

    @property
    def in_ram(self) -> bool:
        """Whether the folder lies in memory."""
        return self.folder.is_relative_to(SHARED_MEMORY)

    def read(self, path: Path) -> NDArray[np.uint8]:
        """The same pixels as from `read_image`, perhaps read-only.

        Raises:
            ModelExportError: The image cannot be read, or the cache cannot be written.
        """
        entry = self._entry(path)
        try:
            return _mapped(entry)
        except (OSError, ValueError):
            image = read_image(path)
        try:
            self._write(entry, image)
        except OSError as error:
            raise ModelExportError(f"cannot write the cache {entry}: {error}") from error
        return image

    def _entry(self, path: Path) -> Path:
        try:
            status = path.stat()
        except OSError as error:
            raise ModelExportError(f"cannot read the image {path}: {error.strerror}") from error
        version = f"{DECODER_VERSION} {path.absolute()} {status.st_size} {status.st_mtime_ns}"
        return self.folder / f"{hashlib.sha256(version.encode()).hexdigest()[:32]}.npy"

    def _write(self, entry: Path, image: NDArray[np.uint8]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Replaced whole, because other workers may read it at the same time.
        with replacing(entry) as file:
            np.save(file, image)


@contextmanager
def ram_folder(name: str, place: Path = SHARED_MEMORY) -> Iterator[Path]:
    """A folder in memory, which all processes of a machine share, and which is gone afterwards.

    Folders of processes that were killed are removed, too: a lock tells whether anybody uses one.

    Args:
        name: Processes that give the same name share the folder.
        place: A folder in memory.

    Raises:
        ModelExportError: This system has no folders in memory.
    """
    import fcntl  # noqa: PLC0415 - Windows lacks it

    if not place.is_dir():
        raise ModelExportError(
            f"--cache ram needs {place}, which this system lacks; --cache DIR keeps images on disk"
        )
    for left in place.glob(f"{RAM_PREFIX}*"):
        _remove_unused(left)
    folder = place / f"{RAM_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    folder.mkdir(exist_ok=True, mode=0o700)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            yield folder
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            _remove_unused(folder)


def _remove_unused(folder: Path) -> None:
    import fcntl  # noqa: PLC0415 - Windows lacks it

    # Another user's folder, or one that is gone by now.
    with suppress(OSError), (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


def _mapped(entry: Path) -> NDArray[np.uint8]:
    """The array that `numpy.load` would map, in a tenth of the time it takes.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no (h, w, 3) uint8 array in numpy's format, or is cut short.
    """
    with entry.open("rb", buffering=0) as file:
        shape, start = _layout(file.read(HEADER_BYTES))
        pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pixels, dtype=np.uint8, offset=start).reshape(shape)


@lru_cache
def _layout(header: bytes) -> tuple[tuple[int, ...], int]:
    """The array's shape and the offset of its values, from the first bytes of a .npy file."""
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("not the version of .npy that is written here")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if len(shape) != 3 or is_fortran or dtype != np.uint8:
        raise ValueError("not an image")
    return shape, stream.tell()
