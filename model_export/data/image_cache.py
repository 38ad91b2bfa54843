"""A cache of decoded images, for trainings that wait for their workers."""

import hashlib
import io
import mmap
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.files import replacing

# Part of every entry's name: raise it when the decoder gives other pixels for the same file.
DECODER_VERSION: Final = 2
# The length of the header that numpy writes for an image in a .npy file.
HEADER_BYTES: Final = 128


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
