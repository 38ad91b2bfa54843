"""From the bytes of an image file to pixels, within limits and the right way up."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from service.errors import InvalidImageError, TooLargeError, UnsupportedTypeError

Pixels = NDArray[np.uint8]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# The first bytes by which a file claims to be of an accepted format (offset, bytes).
SIGNATURES: Final = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (8, b"WEBP"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (4, b"ftypavif"),
)


def read_image(content: bytes, max_pixels: int) -> Pixels:
    """Decode one image as a person sees it.

    The size is read from the header and checked before anything is decoded. EXIF orientation is
    applied, transparency is laid on white, 16-bit greys keep their upper 8 bits, and of several
    frames the first is taken.

    Args:
        content: The bytes of an image file.
        max_pixels: Width times height at most.

    Returns:
        (h, w, 3) uint8, BGR.

    Raises:
        UnsupportedTypeError: The bytes are no image of an accepted type.
        TooLargeError: The image has more pixels than `max_pixels`.
        InvalidImageError: The image is damaged or of a pixel format that has no one meaning.
    """
    with _clear_errors(), _open(content) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise TooLargeError(
                f"the image is {width} x {height} pixels, and the limit is {max_pixels} pixels"
            )
        pixels = _decode_jpeg(content, image)
        if pixels is None:
            # Pillow turns some formats by itself while it decodes, and then forgets the tag.
            image.load()
            pixels = _to_bgr(image)
        return _turn_upright(pixels, image.getexif().get(ExifTags.Base.Orientation, 1))


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Whatever a decoder throws at a damaged file is the same to a client."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLargeError(str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        raise InvalidImageError(f"the image cannot be decoded: {error}") from error


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=ACCEPTED_FORMATS)
    except UnidentifiedImageError as error:
        if any(content[at : at + len(magic)] == magic for at, magic in SIGNATURES):
            raise InvalidImageError("the image's header is damaged or cut short") from error
        raise UnsupportedTypeError(
            f"this is no image of an accepted type ({', '.join(ACCEPTED_FORMATS)})"
        ) from error


def _decode_jpeg(content: bytes, image: Image.Image) -> Pixels | None:
    """The fast way for ordinary JPEGs, or None where Pillow is to decide.

    The strict decoder refuses files that are merely odd as well as damaged ones; Pillow tells
    the two apart.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        return np.asarray(simplejpeg.decode_jpeg(content, colorspace="BGR", strict=True))
    except ValueError:
        return None


def _to_bgr(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InvalidImageError("32-bit pixels have no one meaning; send 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    rgb = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (1-8; anything else means upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
