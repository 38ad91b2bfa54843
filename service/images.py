"""From the bytes of an image file to pixels, within limits and the right way up."""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from service.errors import (
    InvalidImageError,
    MalformedRequestError,
    ServiceError,
    TooLargeError,
    UnsupportedTypeError,
)

Pixels = NDArray[np.uint8]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Encoders write about ten scans; each costs a pass over all the pixels.
MOST_JPEG_SCANS: Final = 100
# BI_RLE8 and BI_RLE4: decoded in Python, at seconds a megabyte.
BMP_RUN_LENGTHS: Final = (1, 2)
LARGE_PIXELS: Final = 12_000_000
TILE_WIDTH_TAG: Final = 322
TILE_LENGTH_TAG: Final = 323
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


def read_image(
    content: bytes, max_pixels: int, large_image: AbstractContextManager[object] | None = None
) -> Pixels:
    """Decode one image as a person sees it.

    The size is read from the header and checked before anything is decoded. EXIF orientation is
    applied, transparency is laid on white, 16-bit greys keep their upper 8 bits, and of several
    frames the first is taken.

    Args:
        content: The bytes of an image file.
        max_pixels: Width times height at most.
        large_image: Entered while an image of more than `LARGE_PIXELS` is decoded.

    Returns:
        (h, w, 3) uint8, BGR.

    Raises:
        UnsupportedTypeError: The bytes are no image of an accepted type.
        TooLargeError: The image has more pixels than `max_pixels`.
        InvalidImageError: The image is damaged, would take too long, or is of a pixel format
            that has no one meaning.
        MalformedRequestError: There are no bytes.
    """
    if not content:
        raise MalformedRequestError("the image is empty")
    with _clear_errors(max_pixels), _open(content) as image:
        width, height = _size_to_decode(image)
        if width * height > max_pixels:
            raise TooLargeError(
                f"the image is {width} x {height} pixels, and the limit is {max_pixels} pixels"
            )
        _refuse_slow_decoding(image, content)
        is_large = large_image is not None and width * height > LARGE_PIXELS
        with large_image if large_image is not None and is_large else nullcontext():
            return _decode(image, content)


def _size_to_decode(image: Image.Image) -> tuple[int, int]:
    """(width, height) that decoding will fill: a TIFF's tiles may be larger than the TIFF."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width = max(width, int(image.tag_v2.get(TILE_WIDTH_TAG, 0)))
        height = max(height, int(image.tag_v2.get(TILE_LENGTH_TAG, 0)))
    return width, height


def _refuse_slow_decoding(image: Image.Image, content: bytes) -> None:
    """Some files cost far more time than their size tells, and a thread cannot be stopped."""
    # Inside compressed JPEG data this pair of bytes stands for nothing else.
    if image.format in ("JPEG", "MPO") and content.count(b"\xff\xda") > MOST_JPEG_SCANS:
        raise InvalidImageError(f"the JPEG has more than {MOST_JPEG_SCANS} scans")
    if image.format == "BMP" and image.info.get("compression") in BMP_RUN_LENGTHS:
        raise InvalidImageError("run-length encoded BMP is not supported")


def _decode(image: Image.Image, content: bytes) -> Pixels:
    pixels = _decode_jpeg(content, image)
    if pixels is None:
        # Pillow turns some formats by itself while it decodes, and then forgets the tag.
        image.load()
        pixels = _to_bgr(image)
    return _turn_upright(pixels, image.getexif().get(ExifTags.Base.Orientation, 1))


@contextmanager
def _clear_errors(max_pixels: int) -> Iterator[None]:
    """Whatever a decoder throws at a damaged file is the same to a client."""
    try:
        yield
    except ServiceError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"the image has more than {max_pixels} pixels") from error
    except Exception as error:
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
