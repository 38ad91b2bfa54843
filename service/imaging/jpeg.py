"""JPEG files: decoded quickly, and smaller where fewer pixels are enough."""

import io
import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from service.errors import InvalidImageError
from service.imaging.image_file import ImageFile, Size
from service.imaging.pixels import UPRIGHT, Pixels, bands, to_bgr
from service.imaging.tiff.directory import exif_orientation

# Each scan costs a pass over all pixels. Encoders write about ten.
MAX_SCANS: Final = 100
# Bytes a pixel beside the coefficients; they lessen with the size that it is decoded at.
PEAK_BYTES: Final = 10
# Coefficients of a JPEG in several scans: two bytes for each of up to four channels, at any size.
COEFFICIENT_BYTES: Final = 8
# Factors by which a JPEG can be decoded smaller in less time; its blocks have 8 x 8 pixels.
REDUCTIONS: Final = (8, 4, 2)
# A reduced JPEG keeps at least this many times the sides that it is fitted into. Reduced pixels are
# smoother than those that networks are trained on: with 1 here, YOLOX-nano at 320 lost 0.007 AP.
MIN_OVERSIZE: Final = 2
# FF DA, the marker that begins a scan, as a little-endian number.
SCAN: Final = 0xDAFF
# A marker that begins a segment. FF 00 and the restart markers FF D0 to FF D7 occur in compressed
# data, and decoders ignore FF 01 to FF BF: a length read at one of these could hide later scans.
MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
END: Final = b"\xff\xd9"
# Markers that begin the description of the pixels, by the kind of JPEG.
FRAMES: Final = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC9, 0xCA), "JPEG"),
    **dict.fromkeys((0xC3, 0xCB), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical JPEG"),
    0xF7: "JPEG-LS",
}
PROGRESSIVE: Final = (0xC2, 0xC6, 0xCA, 0xCE)


class JpegFile(ImageFile):
    """A JPEG.

    Args:
        content: The bytes of the file.

    Raises:
        InvalidImageError: The JPEG is of a variety that is not read; the error names it.
    """

    kind = "JPEG"

    def __init__(self, content: bytes) -> None:
        _refuse_unusual(content)
        self._image = Image.open(io.BytesIO(content), formats=("JPEG", "MPO"))
        self._content = content
        self.width, self.height = self.decoded_size = self._image.size

    def close(self) -> None:
        """Let Pillow's image go."""
        self._image.close()

    def peak_bytes(self, fit: Size | None) -> int:
        """An upper bound of the memory that decoding takes, copies included."""
        pixels = self.width * self.height
        reduced = pixels // reduction((self.width, self.height), fit) ** 2
        coefficients = 0 if _is_decoded_at_once(self._content) else COEFFICIENT_BYTES
        return reduced * PEAK_BYTES + pixels * coefficients

    def header_orientation(self) -> int:
        """The EXIF orientation, which the header tells."""
        exif = self._image.info.get("exif")
        return exif_orientation(exif) if exif else UPRIGHT

    def decode(self, fit: Size | None) -> tuple[Pixels, int]:
        """Decode the pixels, as stored, and tell their orientation.

        Raises:
            InvalidImageError: There are more than `MAX_SCANS`.
        """
        if _scans(self._content) > MAX_SCANS:
            raise InvalidImageError(f"the JPEG has more than {MAX_SCANS} scans; save it anew")
        orientation = self.header_orientation()
        pixels = self._decode_strictly(reduction((self.width, self.height), fit))
        if pixels is None:
            self._image.load()
            pixels = to_bgr(self._image)
        return pixels, orientation

    def _decode_strictly(self, factor: int) -> Pixels | None:
        """Decode an ordinary JPEG quickly; gives None for a file that Pillow is to judge.

        The strict decoder refuses unusual files as well as damaged ones. Pillow tells the two
        apart. A file without its end marker gets one: if more is missing, that is an error still.
        """
        content = self._content
        for whole in (content, content + END):
            try:
                pixels: Pixels = simplejpeg.decode_jpeg(
                    whole,
                    colorspace="CMYK" if self._image.mode == "CMYK" else "BGR",
                    strict=True,
                    # The decoder takes the strongest reduction that gives at least this size.
                    min_width=-(-self.width // factor),
                    min_height=-(-self.height // factor),
                    min_factor=factor,
                )
            except ValueError:
                if content.endswith(END):
                    break
            else:
                return _from_cmyk(pixels) if pixels.shape[2] == 4 else pixels
        return None


def reduction(size: Size, fit: Size | None) -> int:
    """The factor by which an image of (width, height) may be decoded smaller.

    EXIF may turn the image by a quarter, so the factor has to suit both orientations.
    """
    if fit is None:
        return 1
    ratio = max(min(fit[0] / b, fit[1] / a) for a, b in (size, size[::-1]))
    most = 1 / (ratio * MIN_OVERSIZE)
    return next((factor for factor in REDUCTIONS if factor <= most), 1)


def _from_cmyk(cmyk: Pixels) -> Pixels:
    """BGR of Adobe's CMYK, which is inverted in every JPEG: 255 is no ink."""
    height, width, _ = cmyk.shape
    pixels = np.empty((height, width, 3), np.uint8)
    for rows in bands(width, height):
        inks = cmyk[rows].astype(np.uint16)
        pixels[rows] = (inks[:, :, 2::-1] * inks[:, :, 3:] + 127) // 255
    return pixels


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """The code of each marker with a length, and the offset of that; up to the first scan."""
    at = len(END)
    while (marker := MARKER.search(content, at)) is not None and marker[0] != END:
        code, start = marker[0][1], marker.end()
        yield code, start
        if code == SCAN >> 8:
            return
        at = start + max(2, int.from_bytes(content[start : start + 2], "big"))


def _is_decoded_at_once(content: bytes) -> bool:
    """Whether one scan has all channels, so that no coefficients of the whole image are kept."""
    channels, in_first_scan, is_progressive = 0, 0, False
    for code, start in _segments(content):
        if code in FRAMES and len(content) > start + 7:
            channels, is_progressive = content[start + 7], code in PROGRESSIVE
        elif code == SCAN >> 8 and len(content) > start + 2:
            in_first_scan = content[start + 2]
    return in_first_scan == channels and not is_progressive


def _refuse_unusual(content: bytes) -> None:
    """Name a kind of JPEG that is not read, if the file is of one.

    Raises:
        InvalidImageError: It is.
    """
    for code, start in _segments(content):
        if code in FRAMES and len(content) > start + 7:
            name, bits, channels = FRAMES[code], content[start + 2], content[start + 7]
            if (name, bits) != ("JPEG", 8) or channels not in (1, 3, 4):
                raise InvalidImageError(
                    f"this is a {name} of {bits} bits and {channels} channels, which the server "
                    "does not read; send an ordinary JPEG of 8 bits"
                )


def _scans(content: bytes) -> int:
    """Count the scans of a JPEG, or give an upper bound that is within the limit.

    The bound is how often the bytes of a scan marker occur anywhere in the file. Comparing pairs of
    bytes at even and at odd offsets takes a quarter of the time of `bytes.count`. A video or second
    picture after the image can hold these bytes by chance, so that a file with too many of them is
    read segment by segment.
    """
    pairs = (np.frombuffer(content, "<u2", (len(content) - at) // 2, at) for at in (0, 1))
    places = sum(int(np.count_nonzero(pair == SCAN)) for pair in pairs)
    return places if places <= MAX_SCANS else _walk_scans(content)


def _walk_scans(content: bytes) -> int:
    """Count the scans before the end of the image, up to the first one too many."""
    scans, at = 0, len(END)
    while scans <= MAX_SCANS:
        marker = MARKER.search(content, at)
        if marker is None or marker[0] == END:
            break
        scans += marker[0] == SCAN.to_bytes(2, "little")
        length = int.from_bytes(content[marker.end() : marker.end() + 2], "big")
        at = marker.end() + max(2, length)
    return scans
