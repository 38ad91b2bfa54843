"""Image files, decoded exactly as the server decodes them."""

import contextlib
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_export.errors import ModelExportError
from service.errors import ServiceError
from service.imaging.read import Photo, read_size
from service.imaging.read import read_image as read_as_server

# Pillow opens no larger image: twice its MAX_IMAGE_PIXELS, half a gigabyte when decoded. The
# server's own limit is lower, and a setting, because strangers send its images.
MAX_PIXELS: Final = 178_956_970
# Almost all headers of JPEGs end before; the others are read with the whole file.
HEADER_BYTES: Final = 1 << 17
JPEG_START: Final = b"\xff\xd8"
# Pillow warns of large images and of damaged EXIF without a file's name. Nothing comes of either:
# the limit is the one above, and a damaged image is refused by its name.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


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
    decoded at an eighth of its size, which reads every byte in less time than a full decode.

    Raises:
        ModelExportError: The file cannot be read; the message names it.
    """
    photo = read_small(path)
    return photo.height, photo.width


def read_small(path: Path) -> Photo:
    """An image with its size in the file, decoded as small as that is possible.

    Raises:
        ModelExportError: The file cannot be read; the message names it.
    """
    return _read(path, fit=(1, 1))


def header_size(path: Path) -> tuple[int, int] | None:
    """The height and width in pixels, upright, that an image file's header states.

    Pixels are decoded only where the header does not tell which way is up, so that a damaged file
    may have a size. Annotations in shares of an image need sizes before `image_size` has read the
    files.

    Returns:
        None if the file is missing, or has none that the decoder could read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(HEADER_BYTES)
            if content.startswith(JPEG_START):
                # Its pixels come last, and a data set has gigabytes of them.
                with contextlib.suppress(ServiceError):
                    return read_size(content, MAX_PIXELS)
            return read_size(content + file.read(), MAX_PIXELS)
    except (OSError, ValueError, ServiceError):
        return None


def other_size(path: Path, size: tuple[int, int], annotated: tuple[int, int]) -> ModelExportError:
    """The refusal of an image whose annotations are for another height and width in pixels."""
    cure = "correct the size in the annotations, or put back the image that they were drawn on"
    if size == annotated[::-1]:
        cure = (
            "if they were drawn before the image was turned upright, remove its EXIF orientation; "
            "if not, correct the size in the annotations"
        )
    return ModelExportError(
        f"{path} is {size[1]} x {size[0]} pixels the right way up, and its annotations are for "
        f"{annotated[1]} x {annotated[0]}; {cure}"
    )


def _read(path: Path, fit: tuple[int, int] | None = None) -> Photo:
    try:
        return decode_image(path.read_bytes(), fit)
    except FileNotFoundError as error:
        raise ModelExportError(f"cannot read the image {path}: it is missing") from error
    except OSError as error:
        raise ModelExportError(f"cannot read the image {path}: {error.strerror}") from error
    except ValueError as error:  # a path that no system can have
        raise ModelExportError(
            f"cannot read the image {str(path)!r}: no file can have this name"
        ) from error
    except ModelExportError as error:
        raise ModelExportError(f"cannot read the image {path}: {error}") from error
