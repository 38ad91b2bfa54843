"""Decodes the bytes of an image file to upright pixels, within limits."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

from service.errors import InvalidImageError, MalformedRequestError, ServiceError, TooLargeError
from service.imaging.heic import HeicFile
from service.imaging.image_file import ImageFile, Size
from service.imaging.jpeg import JpegFile
from service.imaging.kinds import SIGNATURE, kind_by_brands
from service.imaging.memory import HeldMemory, ImageMemory
from service.imaging.pillow_files import AvifFile, BmpFile, GifFile, PngFile, WebpFile
from service.imaging.pixels import SIDEWAYS, UPRIGHT, Pixels, turn_upright
from service.imaging.tiff.file import TiffFile

OPENERS: Final[Mapping[str | None, Callable[[bytes], ImageFile]]] = {
    file.kind: file
    for file in (JpegFile, PngFile, WebpFile, GifFile, BmpFile, TiffFile, AvifFile, HeicFile)
}
# Up to here an image takes 27 MB at most, and the threads are what bounds the memory of all.
SMALL_PIXELS: Final = 1_000_000
# Bytes a pixel of an image that is drawn on: the pixels, Pillow's copy, and the file, twice.
DRAWN_BYTES: Final = 13


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
    memory: ImageMemory | HeldMemory | None = None,
) -> Photo:
    """Decode one image the way a viewer would show it.

    The size is checked in the header, before anything is decoded. EXIF orientation is applied,
    transparency becomes white, 16 bits keep their upper 8, and an animation gives its first frame.
    Colour profiles and gamma are not applied.

    Args:
        content: The bytes of an image file.
        max_pixels: Maximum width times height.
        fit: (height, width) in pixels that the image will be fitted into. A JPEG with at least four
            times these sides is decoded smaller, but not below twice these sides. By default every
            image is decoded at its full size, and `memory` has room for drawing on it.
        memory: Where decoding takes its memory from, unless the image is small; or what is held
            for it already.

    Returns:
        The image.

    Raises:
        UnsupportedTypeError: The bytes are not an image of an accepted type.
        TooLargeError: The image has more pixels than `max_pixels`.
        InvalidImageError: The image is damaged, would take too long to decode, or is of a variety
            that is not read; the error names it.
        MalformedRequestError: There are no bytes.
        MemoryShortError: Other images take all of the memory at the moment.
    """
    with _opened(content, max_pixels) as file:
        width, height = file.decoded_size
        held = None
        if memory is not None and width * height > SMALL_PIXELS:
            held = _held(memory, file, fit)
        try:
            pixels, orientation = file.decode(fit)
            # Pillow's copy of the pixels goes before another one is made.
            file.close()
            if orientation != UPRIGHT:
                pixels = turn_upright(pixels, orientation)
        except BaseException:
            if held is not None:
                held.release()
            raise
        if held is not None:
            held.shrink(max(pixels.nbytes, _drawn_bytes(file, fit)))
        sides = file.height, file.width
        return Photo(pixels, *(sides[::-1] if orientation in SIDEWAYS else sides), held)


def read_size(content: bytes, max_pixels: int) -> Size:
    """The (height, width) in pixels that `read_image` gives an image, from its header if possible.

    Args:
        content: The bytes of an image file.
        max_pixels: Maximum width times height.

    Raises:
        ServiceError: As `read_image` raises it, for what is read here.
    """
    with _opened(content, max_pixels) as file:
        orientation = file.header_orientation()
        if orientation is not None:
            sides = file.height, file.width
            return sides[::-1] if orientation in SIDEWAYS else sides
    photo = read_image(content, max_pixels)
    return photo.height, photo.width


@contextmanager
def _opened(content: bytes, max_pixels: int) -> Iterator[ImageFile]:
    """An image file of an accepted type and size; errors become those that a client gets."""
    if not content:
        raise MalformedRequestError("the image is empty")
    signature = SIGNATURE.match(content)
    kind = signature.lastgroup if signature else kind_by_brands(content)
    with _as_service_errors(kind, max_pixels), closing(OPENERS[kind](content)) as file:
        width, height = file.decoded_size
        if width * height > max_pixels:
            raise too_many_pixels(width, height, max_pixels)
        yield file


def _held(memory: ImageMemory | HeldMemory, file: ImageFile, fit: Size | None) -> HeldMemory:
    """The memory that decoding takes, and drawing if all pixels are asked for."""
    if isinstance(memory, HeldMemory):
        return memory
    return memory.take(max(_drawn_bytes(file, fit), file.peak_bytes(fit)))


def _drawn_bytes(file: ImageFile, fit: Size | None) -> int:
    """The memory that drawing on the image takes; a fitted image is never drawn on."""
    width, height = file.decoded_size
    return DRAWN_BYTES * width * height if fit is None else 0


def too_many_pixels(width: int, height: int, max_pixels: int) -> TooLargeError:
    """The error of an image of this size, in pixels, that is above the limit."""
    return TooLargeError(
        f"the image is {width} x {height} pixels, and the limit is {max_pixels} pixels"
    )


@contextmanager
def _as_service_errors(kind: str | None, max_pixels: int) -> Iterator[None]:
    """Turn whatever a decoder raises into the error that a client gets for a damaged file.

    A library's own words mean nothing to a client; they remain as the error's cause.
    """
    try:
        yield
    except ServiceError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"the image has more than {max_pixels} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidImageError(
            f"the header of the {kind} is damaged or cut short; send the whole original file"
        ) from error
    except Exception as error:
        raise InvalidImageError(
            f"the image cannot be decoded: the {kind} is damaged or cut short; send the whole "
            "original file"
        ) from error
