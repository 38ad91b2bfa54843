"""Image files: whether they can be read at all, their pixels, and a cache of these."""

import hashlib
import io
import mmap
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from model_export.errors import ModelExportError
from model_export.files import replacing

# Pillow checks the files and OpenCV reads them: formats that both know.
FORMATS: Final = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
# EXIF orientations that exchange height and width.
SIDEWAYS: Final = (5, 6, 7, 8)
# How long numpy makes the header of an image in a .npy file.
HEADER_BYTES: Final = 128


def checked_size(path: Path) -> tuple[int, int]:
    """Read a whole image file, and give its height and width the right way up, in pixels.

    A header alone would not show a download that was cut, which is how files break most often. A
    JPEG is decoded at an eighth of its size: every byte is read, at half the time of decoding it.

    Raises:
        ModelExportError: The file is missing, cut short, or no image of a known format.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            # Pillow turns TIFFs itself.
            turned = image.format == "TIFF"
            sideways = not turned and image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
            image.draft("RGB", (1, 1))
            image.load()
    except FileNotFoundError as error:
        raise ModelExportError(f"{path} is missing") from error
    # Pillow's parsers throw many kinds of errors at damaged files.
    except (
        *(OSError, ValueError, TypeError, SyntaxError, EOFError),
        Image.DecompressionBombError,
    ) as error:
        raise ModelExportError(f"{path} is broken: {error}") from error
    return (width, height) if sideways else (height, width)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file the right way up.

    EXIF orientation is applied, as COCO's common tools (those that read with OpenCV, and
    Detectron2) and the service do: boxes are drawn on what a person sees. Transparency is left out.

    Returns:
        (h, w, 3) uint8, BGR.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        # Not `imread`, which takes no path outside of the code page on Windows.
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise ModelExportError(f"cannot read the image {path}: {error}") from error
    if image is None:
        raise ModelExportError(f"cannot read the image {path}: it is broken or of another format")
    return np.asarray(image, dtype=np.uint8)


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
        version = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}"
        return self.folder / f"{hashlib.sha256(version.encode()).hexdigest()[:32]}.npy"

    def _write(self, entry: Path, image: NDArray[np.uint8]) -> None:
        """Other workers must never see half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(entry) as file:
            np.save(file, image)
