"""From the bytes of an image file to pixels, within limits and the right way up."""

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
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
# Above what most telephones take, 12 megapixels.
LARGE_PIXELS: Final = 16_000_000
# By how much JPEGs can be decoded smaller in less time: their blocks are of 8 x 8 pixels.
JPEG_REDUCTIONS: Final = (8, 4, 2)
# Reduced pixels are smoother than those that networks are trained on. Twice as many as fit are
# brought down the usual way; with no more than fit, YOLOX-nano at 320 lost 0.007 of its AP.
LEAST_OVERSIZE: Final = 2
# The marker that begins a scan, FF DA, as a little-endian number.
JPEG_SCAN: Final = 0xDAFF
# A marker that begins a segment. FF 00 and the restarts, FF D0 to FF D7, stand in compressed data,
# and decoders pass over FF 01 to FF BF: a length read there could hide scans behind it.
JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
JPEG_END: Final = b"\xff\xd9"
# EXIF orientations by a quarter turn.
SIDEWAYS: Final = (5, 6, 7, 8)
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


@dataclass(frozen=True, slots=True)
class Photo:
    """An image as a person sees it, perhaps in fewer pixels than its file has.

    Attributes:
        pixels: (h, w, 3) uint8, BGR; the file's, or every 2, 4 or 8 in either direction in one.
        height: Height of the file's image in pixels, upright.
        width: Width of the file's image in pixels, upright.
    """

    pixels: Pixels
    height: int
    width: int


def read_image(
    content: bytes,
    max_pixels: int,
    *,
    fit: tuple[int, int] | None = None,
    large_image: AbstractContextManager[object] | None = None,
) -> Photo:
    """Decode one image as a person sees it.

    The size is read from the header and checked before anything is decoded. EXIF orientation is
    applied, transparency is laid on white, 16-bit greys keep their upper 8 bits, and of several
    frames the first is taken.

    Args:
        content: The bytes of an image file.
        max_pixels: Width times height at most.
        fit: (height, width) in pixels of what the image will be fitted into; a JPEG of more than
            four times that is decoded smaller, but not below twice. By default all are wanted.
        large_image: Entered while an image of more than `LARGE_PIXELS` is decoded.

    Returns:
        The image.

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
            return _decode(image, content, fit)


def _size_to_decode(image: Image.Image) -> tuple[int, int]:
    """(width, height) that decoding will fill: a TIFF's tiles may be larger than the TIFF."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width = max(width, int(image.tag_v2.get(TILE_WIDTH_TAG, 0)))
        height = max(height, int(image.tag_v2.get(TILE_LENGTH_TAG, 0)))
    return width, height


def _refuse_slow_decoding(image: Image.Image, content: bytes) -> None:
    """Some files cost far more time than their size tells, and a thread cannot be stopped."""
    if image.format in ("JPEG", "MPO") and _jpeg_scans(content) > MOST_JPEG_SCANS:
        raise InvalidImageError(f"the JPEG has more than {MOST_JPEG_SCANS} scans")
    if image.format == "BMP" and image.info.get("compression") in BMP_RUN_LENGTHS:
        raise InvalidImageError("run-length encoded BMP is not supported")


def _jpeg_scans(content: bytes) -> int:
    """How many scans a JPEG has, or more, if that is no more than may be.

    First, the places where their marker stands, in whatever data: as pairs of bytes at even and at
    odd places, a quarter of the time that `bytes.count` takes. Behind the image there may be a film
    or another picture, which have such places by chance: those of many are walked through.
    """
    pairs = (np.frombuffer(content, "<u2", (len(content) - at) // 2, at) for at in (0, 1))
    places = sum(int(np.count_nonzero(pair == JPEG_SCAN)) for pair in pairs)
    return places if places <= MOST_JPEG_SCANS else _walk_jpeg_scans(content)


def _walk_jpeg_scans(content: bytes) -> int:
    """How many scans stand before the end of the image; no further than needed to refuse it."""
    scans, at = 0, len(JPEG_END)
    while scans <= MOST_JPEG_SCANS:
        marker = JPEG_MARKER.search(content, at)
        if marker is None or marker[0] == JPEG_END:
            break
        scans += marker[0] == JPEG_SCAN.to_bytes(2, "little")
        length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        at = marker.end() + max(2, length)
    return scans


def _decode(image: Image.Image, content: bytes, fit: tuple[int, int] | None) -> Photo:
    width, height = image.size
    # Pillow turns some formats by itself while it decodes, and then forgets the tag.
    pixels = _decode_jpeg(content, image, _jpeg_reduction(image.size, fit))
    if pixels is None:
        image.load()
        width, height = image.size
        pixels = _to_bgr(image)
    orientation = _orientation(image)
    if orientation in SIDEWAYS:
        width, height = height, width
    return Photo(_turn_upright(pixels, orientation), height, width)


def _orientation(image: Image.Image) -> int:
    """EXIF's, or upright where the tags are damaged: the pixels are none the worse for it."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow's parser throws many kinds of errors
        return 1


def _jpeg_reduction(size: tuple[int, int], fit: tuple[int, int] | None) -> int:
    """By how much an image of (width, height) can be reduced and still be larger than what it fits.

    Turned by a quarter it would fit another way; the less reduced of the two is taken.
    """
    if fit is None:
        return 1
    ratio = max(min(fit[0] / b, fit[1] / a) for a, b in (size, size[::-1]))
    most = 1 / (ratio * LEAST_OVERSIZE)
    return next((factor for factor in JPEG_REDUCTIONS if factor <= most), 1)


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


def _decode_jpeg(content: bytes, image: Image.Image, reduction: int) -> Pixels | None:
    """The fast way for ordinary JPEGs, or None where Pillow is to decide.

    The strict decoder refuses files that are merely odd as well as damaged ones; Pillow tells
    the two apart.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        return np.asarray(
            simplejpeg.decode_jpeg(
                content,
                colorspace="BGR",
                strict=True,
                # The least it may give; of all reductions it takes the strongest that gives that.
                min_width=-(-image.width // reduction),
                min_height=-(-image.height // reduction),
                min_factor=reduction,
            )
        )
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
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
