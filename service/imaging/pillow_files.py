"""The kinds of image files that Pillow decodes, with what it leaves to be done."""

import struct
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile as PillowImageFile

from service.errors import InvalidImageError
from service.imaging.image_file import ImageFile, Size, open_with_pillow
from service.imaging.kinds import brands_of
from service.imaging.pixels import UPRIGHT, Pixels, to_bgr
from service.imaging.tiff.directory import exif_orientation

# BI_RGB and BI_BITFIELDS. Pillow decodes run lengths in Python, which takes seconds for a megabyte.
BMP_COMPRESSIONS: Final = (0, 3)
BMP_NAMES: Final = {
    1: "run-length encoded",
    2: "run-length encoded",
    4: "JPEG compressed",
    5: "PNG compressed",
}
# Times the memory of a PNG, if OpenCV decodes it too.
DECODED_TWICE: Final = 3
# The size of the header of OS/2's second version, which numbers compressions in its own way.
OS2_HEADER: Final = 64


class PillowFile(ImageFile):
    """A file that Pillow decodes, all pixels of it.

    Args:
        content: The bytes of the file.
    """

    # Bytes a pixel that decoding takes at its peak, measured and rounded up.
    peak: ClassVar[int] = 9
    # A file of this kind that has none of these is upright. EXIF may come after the pixels.
    turn_marks: ClassVar[tuple[bytes, ...]] = ()

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._image = self.open_image(content)
        self.width, self.height = self.decoded_size = self._image.size

    def open_image(self, content: bytes) -> PillowImageFile.ImageFile:
        """Read the header with Pillow."""
        return open_with_pillow(content, (self.kind,))

    def close(self) -> None:
        """Let Pillow's image go."""
        self._image.close()

    def peak_bytes(self, fit: Size | None) -> int:  # noqa: ARG002 - only JPEGs get smaller
        """An upper bound of the memory that decoding takes, copies included."""
        return self.width * self.height * self.peak

    def header_orientation(self) -> int | None:
        """The EXIF orientation of an upright file; None if only decoding reveals it."""
        return None if any(mark in self._content for mark in self.turn_marks) else UPRIGHT

    def decode(self, fit: Size | None) -> tuple[Pixels, int]:  # noqa: ARG002 - only JPEGs get smaller
        """Decode the pixels, as stored, and tell their orientation."""
        self._image.load()
        pixels = self.finish(self._image)
        return pixels, exif_orientation(self._image.info.get("exif", b""))

    def finish(self, image: PillowImageFile.ImageFile) -> Pixels:
        """The pixels of the decoded image: (h, w, 3) uint8, BGR."""
        return to_bgr(image)


class PngFile(PillowFile):
    """A PNG."""

    kind = "PNG"
    turn_marks = (b"eXIf", b"Raw profile type")

    def peak_bytes(self, fit: Size | None) -> int:
        """An upper bound of the memory that decoding takes, copies included."""
        times = DECODED_TWICE if self._has_transparent_color_of_16_bits() else 1
        return super().peak_bytes(fit) * times

    def finish(self, image: PillowImageFile.ImageFile) -> Pixels:
        """The pixels, and white where they have the colour that the file declares transparent."""
        transparent, bits = image.info.get("transparency"), self._content[24]
        if transparent is None or image.mode == "P" or bits == 8 or image.mode.startswith("I"):
            return to_bgr(image)
        del image.info["transparency"]
        pixels = to_bgr(image)
        if bits == 16:
            # Only OpenCV compares all 16 bits of each channel.
            pixels[_transparent_of_16_bits(self._content, image.size)] = 255
        else:
            # Pillow scales grey of 1, 2 or 4 bits to 8, and the transparent value not.
            pixels[(pixels == transparent * 255 // (2**bits - 1)).all(axis=2)] = 255
        return pixels

    def _has_transparent_color_of_16_bits(self) -> bool:
        return self._content[24] == 16 and "transparency" in self._image.info


class GifFile(PillowFile):
    """A GIF, of which the first frame counts.

    Args:
        content: The bytes of the file.
    """

    kind = "GIF"

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        tile = self._image.tile[0]
        self._frame = tile.extents or (0, 0, self.width, self.height)

    def finish(self, image: PillowImageFile.ImageFile) -> Pixels:
        """The pixels of the frame, and white around it: nothing is drawn there."""
        pixels = to_bgr(image)
        left, top, right, bottom = self._frame
        pixels[:top] = pixels[bottom:] = 255
        pixels[:, :left] = pixels[:, right:] = 255
        return pixels


class BmpFile(PillowFile):
    """A BMP."""

    kind = "BMP"

    def open_image(self, content: bytes) -> PillowImageFile.ImageFile:
        """Read the header with Pillow.

        Raises:
            InvalidImageError: The BMP is of a kind that is not supported.
        """
        header, bits, compression = _bmp_header(content)
        if header == OS2_HEADER and compression:
            raise _unsupported_bmp("compressed OS/2", bits)
        if compression not in BMP_COMPRESSIONS:
            raise _unsupported_bmp(BMP_NAMES.get(compression, "compressed"), bits)
        try:
            return super().open_image(content)
        except OSError as error:
            if "Unsupported" in str(error):
                raise _unsupported_bmp("unusual", bits) from error
            raise

    def finish(self, image: PillowImageFile.ImageFile) -> Pixels:
        """The pixels; alpha that is zero everywhere is no alpha, as in browsers."""
        if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
            image.putalpha(255)
        return to_bgr(image)


class WebpFile(ImageFile):
    """A WebP, of which the first frame counts.

    Pillow's decoder takes memory for two canvases as soon as it has a file, so that it gets the
    file only when that memory is held.

    Args:
        content: The bytes of the file.
    """

    kind = "WEBP"
    # Two canvases, the decoder's pixels, Pillow's copy of the first canvas and its image, and ours.
    peak: ClassVar[int] = 18

    def __init__(self, content: bytes) -> None:
        self.width, self.height = self.decoded_size = _webp_size(content)
        self._content = content

    def peak_bytes(self, fit: Size | None) -> int:  # noqa: ARG002 - only JPEGs get smaller
        """An upper bound of the memory that decoding takes, copies included."""
        return self.width * self.height * self.peak

    def header_orientation(self) -> int | None:
        """The EXIF orientation of an upright file; None if only decoding reveals it."""
        return None if b"EXIF" in self._content else UPRIGHT

    def decode(self, fit: Size | None) -> tuple[Pixels, int]:  # noqa: ARG002 - only JPEGs get smaller
        """Decode the pixels of the first frame, as stored, and tell their orientation."""
        with open_with_pillow(self._content, ("WEBP",)) as image:
            if image.size != (self.width, self.height):
                raise ValueError("the sizes in two headers differ")
            image.load()
            return to_bgr(image), exif_orientation(image.info.get("exif", b""))


class AvifFile(PillowFile):
    """An AVIF, of which the first frame counts."""

    kind = "AVIF"
    peak: ClassVar[int] = 18
    turn_marks = (b"Exif", b"irot", b"imir")

    def open_image(self, content: bytes) -> PillowImageFile.ImageFile:
        """Read the header with Pillow, which knows an AVIF by its major brand only."""
        # A still image is first among the items of a file that has both brands.
        major = b"avif" if b"avif" in brands_of(content) else b"avis"
        if content[8:12] != major:
            content = content[:8] + major + content[12:]
        return super().open_image(content)


def _transparent_of_16_bits(content: bytes, size: Size) -> NDArray[np.bool_]:
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (size[1], size[0], 4):
        raise InvalidImageError("a transparent colour of 16 bits is not supported; send 8 bits")
    is_transparent: NDArray[np.bool_] = pixels[:, :, 3] == 0
    return is_transparent


def _bmp_header(content: bytes) -> tuple[int, int, int]:
    """The size of a BMP's header, its bits per pixel and its compression."""
    (header,) = struct.unpack_from("<L", content, 14)
    if header == 12:
        return header, struct.unpack_from("<H", content, 24)[0], 0
    bits, compression = struct.unpack_from("<HL", content, 28)
    return header, bits, compression


def _unsupported_bmp(kind: str, bits: int) -> InvalidImageError:
    return InvalidImageError(
        f"{kind} BMP of {bits} bits is not supported; send an uncompressed BMP of 24 bits, or a PNG"
    )


def _webp_size(content: bytes) -> Size:
    """(width, height) of the canvas, from the header of the file's first chunk.

    Raises:
        ValueError: There is no such header.
    """
    chunk, head = content[12:16], content[20:30]
    if len(head) < 10:
        raise ValueError("the header is cut short")
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if chunk == b"VP8L" and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("the header is damaged")
