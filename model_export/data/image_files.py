"""Image files, decoded exactly as the server decodes them, and a cache of their pixels."""

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

from model_export.errors import ModelExportError
from model_export.files import replacing
from service.errors import ServiceError
from service.imaging.read import Photo
from service.imaging.read import read_image as read_as_server

# Pillow opens no larger image: twice its MAX_IMAGE_PIXELS, half a gigabyte when decoded. The
# server's own limit is lower, and a setting, because strangers send its images.
MAX_PIXELS: Final = 178_956_970
# Part of every cache key: raise it when the decoder gives other pixels for the same file.
DECODER_VERSION: Final = 2
# The header that numpy writes for an image in a .npy file has this length.
HEADER_BYTES: Final = 128


def decode_image(content: bytes, fit: tuple[int, int] | None = None) -> Photo:
    """Decode the bytes of an image file exactly as the server does.

    EXIF orientation is applied: boxes are drawn on what a person sees. Transparency is laid on
    white.

    Args:
        content: The bytes of the file.
        fit: (height, width) in pixels of the input that the image is for; a JPEG of more than four
            times that size is decoded smaller. By default every pixel is decoded.

    Raises:
        ModelExportError: The bytes are no image that the server would decode, or the image has more
            than `MAX_PIXELS`.
    """
    try:
        return read_as_server(content, MAX_PIXELS, fit=fit)
    except ServiceError as error:
        raise ModelExportError(error.detail) from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file: (h, w, 3) uint8, BGR, upright.

    Raises:
        ModelExportError: The file cannot be read; the message names it.
    """
    return _read(path).pixels


def image_size(path: Path) -> tuple[int, int]:
    """The height and width of an image file in pixels, upright; the whole file is read.

    The header alone would not reveal a download that was cut short, the commonest damage. A JPEG is
    decoded at an eighth of its size: that reads every byte, in half the time of a full decode.

    Raises:
        ModelExportError: The file cannot be read; the message names it.
    """
    photo = _read(path, fit=(1, 1))
    return photo.height, photo.width


def _read(path: Path, fit: tuple[int, int] | None = None) -> Photo:
    try:
        return decode_image(path.read_bytes(), fit)
    except FileNotFoundError as error:
        raise ModelExportError(f"cannot read the image {path}: it is missing") from error
    except OSError as error:
        raise ModelExportError(f"cannot read the image {path}: {error.strerror}") from error
    except ModelExportError as error:
        raise ModelExportError(f"cannot read the image {path}: {error}") from error


def _mapped(entry: Path) -> NDArray[np.uint8]:
    """What `numpy.load` maps, in a tenth of its time, which would be a good part of a sample's.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no (h, w, 3) uint8 array of numpy's, or cut short.
    """
    with entry.open("rb", buffering=0) as file:
        shape, start = _layout(file.read(HEADER_BYTES))
        pixels = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(pixels, dtype=np.uint8, offset=start).reshape(shape)


@lru_cache
def _layout(header: bytes) -> tuple[tuple[int, ...], int]:
    """The shape that a .npy file's first bytes tell, and where its values start."""
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of .npy than is written here")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if len(shape) != 3 or is_fortran or dtype != np.uint8:
        raise ValueError("no image")
    return shape, stream.tell()


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Decoded images as .npy files: h * w * 3 bytes of disk each, 0.9 MB for 640 x 480.

    They are mapped, not read, so all workers share one copy in the system's page cache, which
    gives the memory back when it is needed. Files that changed are decoded anew.

    Attributes:
        folder: Where the files are; it is made when needed, and may be deleted at any time.
    """

    folder: Path

    def prepare(self) -> None:
        """Make the folder, and see that files can be written there.

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
        """What `read_image` gives, read-only.

        Raises:
            ModelExportError: The file cannot be read, or the cache not written.
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
        """Other workers must never see half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(entry) as file:
            np.save(file, image)
