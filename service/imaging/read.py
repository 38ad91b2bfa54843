"""Decodes the bytes of an image file to upright pixels, within limits."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from service.imaging.memory import HeldMemory, ImageMemory

Pixels = NDArray[np.uint8]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Each scan costs a pass over all pixels. Encoders write about ten.
MAX_JPEG_SCANS: Final = 100
# BI_RLE8 and BI_RLE4. Pillow decodes them in Python, which takes seconds for each megabyte.
BMP_RUN_LENGTHS: Final = (1, 2)
# Up to here an image takes 18 MB at most, and the threads are what bounds the memory of all.
SMALL_PIXELS: Final = 1_000_000
# Bytes a pixel of an image that is drawn on: the pixels, Pillow's copy, and the file, twice.
DRAWN_BYTES: Final = 13
# Bytes a pixel that decoding takes at its peak, measured and rounded up.
PEAK_BYTES: Final = {"WEBP": 17, "AVIF": 18, "TIFF": 13}
OTHER_PEAK_BYTES: Final = 9
# Those of a JPEG beside its coefficients; they lessen with the size that it is decoded at.
JPEG_PEAK_BYTES: Final = 10
# A progressive JPEG's coefficients: two bytes for each of up to four channels, at any size.
JPEG_COEFFICIENT_BYTES: Final = 8
# Factors by which a JPEG can be decoded smaller in less time; its blocks have 8 x 8 pixels.
JPEG_REDUCTIONS: Final = (8, 4, 2)
# A reduced JPEG keeps at least this many times the sides that it is fitted into. Reduced pixels are
# smoother than those that networks are trained on: with 1 here, YOLOX-nano at 320 lost 0.007 AP.
MIN_OVERSIZE: Final = 2
# FF DA, the marker that begins a scan, as a little-endian number.
JPEG_SCAN: Final = 0xDAFF
# A marker that begins a segment. FF 00 and the restart markers FF D0 to FF D7 occur in compressed
# data, and decoders ignore FF 01 to FF BF: a length read at one of these could hide later scans.
JPEG_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
JPEG_END: Final = b"\xff\xd9"
# Pixels that are converted at once, so that copies of the whole image are never held.
BAND_PIXELS: Final = 1_000_000
# EXIF orientations that swap width and height.
SIDEWAYS: Final = (5, 6, 7, 8)
TILE_WIDTH_TAG: Final = 322
TILE_LENGTH_TAG: Final = 323
# Offset and bytes by which a file claims to be of an accepted format.
SIGNATURES: Final = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    (8, b"WEBP"),
    (0, b"GIF8"),
    (0, b"BM"),
    (0, b"II*\0"),
    (0, b"MM\0*"),
    (4, b"ftypavif"),
    (4, b"ftypavis"),
)


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright image, possibly in fewer pixels than its file has.

    Attributes:
        pixels: (h, w, 3) uint8, BGR; sides may be a half, a quarter or an eighth of the file's.
        height: Height of the file's image in pixels, upright.
        width: Width of the file's image in pixels, upright.
        memory: The memory of the pixels, and of drawing on them; held while the photo exists.
    """

    pixels: Pixels
    height: int
    width: int
    memory: HeldMemory | None = None


def read_image(
    content: bytes,
    max_pixels: int,
    *,
    fit: tuple[int, int] | None = None,
    memory: ImageMemory | None = None,
) -> Photo:
    """Decode one image the way a viewer would show it.

    The size is checked in the header, before anything is decoded. EXIF orientation is applied,
    transparency becomes white, 16-bit grey keeps its upper 8 bits, and an animation gives its
    first frame.

    Args:
        content: The bytes of an image file.
        max_pixels: Maximum width times height.
        fit: (height, width) in pixels that the image will be fitted into. A JPEG with at least four
            times these sides is decoded smaller, but not below twice these sides. By default every
            image is decoded at its full size, and `memory` has room for drawing on it.
        memory: Where decoding takes its memory from, unless the image is small.

    Returns:
        The image.

    Raises:
        UnsupportedTypeError: The bytes are not an image of an accepted type.
        TooLargeError: The image has more pixels than `max_pixels`.
        InvalidImageError: The image is damaged, would take too long to decode, or has an ambiguous
            pixel format.
        MalformedRequestError: There are no bytes.
        BusyError: Other images take all of the memory for too long.
    """
    if not content:
        raise MalformedRequestError("the image is empty")
    with _as_service_errors(max_pixels), _open(content) as image:
        width, height = _size_to_decode(image)
        if width * height > max_pixels:
            raise TooLargeError(
                f"the image is {width} x {height} pixels, and the limit is {max_pixels} pixels"
            )
        _refuse_slow_decoding(image, content)
        if memory is None or width * height <= SMALL_PIXELS:
            return _decode(image, content, fit)
        drawn = DRAWN_BYTES * width * height if fit is None else 0
        taken = memory.take(max(drawn, _peak_bytes(image, width * height, fit)))
        try:
            photo = _decode(image, content, fit)
        except BaseException:
            taken.release()
            raise
        taken.shrink(max(photo.pixels.nbytes, drawn))
        return replace(photo, memory=taken)


def has_image_signature(content: bytes) -> bool:
    """Whether the first bytes claim to be an image of an accepted format."""
    return any(content.startswith(magic, at) for at, magic in SIGNATURES)


def _peak_bytes(image: Image.Image, pixels: int, fit: tuple[int, int] | None) -> int:
    """An upper bound of the memory that decoding takes, copies included."""
    kind = image.format or ""
    if kind not in ("JPEG", "MPO"):
        return pixels * PEAK_BYTES.get(kind, OTHER_PEAK_BYTES)
    is_plain = image.mode in ("RGB", "L")
    reduced = pixels // _jpeg_reduction(image.size, fit) ** 2 if is_plain else pixels
    coefficients = JPEG_COEFFICIENT_BYTES if image.info.get("progressive") else 0
    return reduced * JPEG_PEAK_BYTES + pixels * coefficients


def _size_to_decode(image: Image.Image) -> tuple[int, int]:
    """(width, height) that decoding will fill; a TIFF's tile may be larger than the TIFF."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        width = max(width, int(image.tag_v2.get(TILE_WIDTH_TAG, 0)))
        height = max(height, int(image.tag_v2.get(TILE_LENGTH_TAG, 0)))
    return width, height


def _refuse_slow_decoding(image: Image.Image, content: bytes) -> None:
    """Refuse files that take far longer than their size suggests: a thread cannot be stopped.

    Raises:
        InvalidImageError: This is one.
    """
    if image.format in ("JPEG", "MPO") and _jpeg_scans(content) > MAX_JPEG_SCANS:
        raise InvalidImageError(f"the JPEG has more than {MAX_JPEG_SCANS} scans")
    if image.format == "BMP" and image.info.get("compression") in BMP_RUN_LENGTHS:
        raise InvalidImageError("run-length encoded BMP is not supported")


def _jpeg_scans(content: bytes) -> int:
    """Count the scans of a JPEG, or give an upper bound that is within the limit.

    The bound is how often the bytes of a scan marker occur anywhere in the file. Comparing pairs of
    bytes at even and at odd offsets takes a quarter of the time of `bytes.count`. A video or second
    picture after the image can hold these bytes by chance, so that a file with too many of them is
    read segment by segment.
    """
    pairs = (np.frombuffer(content, "<u2", (len(content) - at) // 2, at) for at in (0, 1))
    places = sum(int(np.count_nonzero(pair == JPEG_SCAN)) for pair in pairs)
    return places if places <= MAX_JPEG_SCANS else _walk_jpeg_scans(content)


def _walk_jpeg_scans(content: bytes) -> int:
    """Count the scans before the end of the image, up to the first one too many."""
    scans, at = 0, len(JPEG_END)
    while scans <= MAX_JPEG_SCANS:
        marker = JPEG_MARKER.search(content, at)
        if marker is None or marker[0] == JPEG_END:
            break
        scans += marker[0] == JPEG_SCAN.to_bytes(2, "little")
        length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        at = marker.end() + max(2, length)
    return scans


def _decode(image: Image.Image, content: bytes, fit: tuple[int, int] | None) -> Photo:
    width, height = image.size
    # Pillow turns some formats while it decodes them, and removes their orientation tag.
    pixels = _decode_jpeg(content, image, _jpeg_reduction(image.size, fit))
    if pixels is None:
        image.load()
        width, height = image.size
        pixels = _to_bgr(image)
    orientation = _orientation(image)
    # Pillow's copy of the pixels goes before another one is made.
    image.close()
    if orientation in SIDEWAYS:
        width, height = height, width
    return Photo(_turn_upright(pixels, orientation), height, width)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, or 1 (upright) if the tags are damaged, which harms no pixel."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow's parser raises many kinds of errors
        return 1


def _jpeg_reduction(size: tuple[int, int], fit: tuple[int, int] | None) -> int:
    """The factor by which an image of (width, height) may be decoded smaller.

    EXIF may turn the image by a quarter, so the factor has to suit both orientations.
    """
    if fit is None:
        return 1
    ratio = max(min(fit[0] / b, fit[1] / a) for a, b in (size, size[::-1]))
    most = 1 / (ratio * MIN_OVERSIZE)
    return next((factor for factor in JPEG_REDUCTIONS if factor <= most), 1)


@contextmanager
def _as_service_errors(max_pixels: int) -> Iterator[None]:
    """Turn whatever a decoder raises into the error that a client gets for a damaged file."""
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
        if has_image_signature(content):
            raise InvalidImageError("the image's header is damaged or cut short") from error
        raise UnsupportedTypeError(
            f"this is not an image of an accepted type ({', '.join(ACCEPTED_FORMATS)})"
        ) from error


def _decode_jpeg(content: bytes, image: Image.Image, reduction: int) -> Pixels | None:
    """Decode an ordinary JPEG quickly; gives None for a file that Pillow is to judge.

    The strict decoder refuses unusual files as well as damaged ones. Pillow tells the two apart.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    try:
        return np.asarray(
            simplejpeg.decode_jpeg(
                content,
                colorspace="BGR",
                strict=True,
                # The decoder takes the strongest reduction that gives at least this size.
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
        raise InvalidImageError("32-bit pixels are ambiguous; send 8 or 16 bits per channel")
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    is_transparent, rows = image.has_transparency_data, max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        band = image.crop((0, top, width, bottom))
        if is_transparent:
            white = Image.new("RGBA", band.size, "white")
            band = Image.alpha_composite(white, band.convert("RGBA"))
        pixels[top:bottom] = np.asarray(band.convert("RGB"))[:, :, ::-1]
    return pixels


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation from 1 to 8; any other number means upright."""
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
