"""TIFF files: what their tags say is made plain before Pillow and libtiff decode them.

Pillow reads some combinations of tags to wrong pixels, and others not at all. It gets a directory
with the tags that are needed and no others, in a form that it reads right: grey instead of
"white is zero", each channel on its own if they are stored so, and no orientation.
"""

import ctypes
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image, TiffImagePlugin

from service.errors import InvalidImageError
from service.imaging.image_file import ImageFile, Size, open_with_pillow
from service.imaging.kinds import refusal
from service.imaging.pixels import Pixels, to_bgr, to_grey8
from service.imaging.tiff.directory import (
    ORIENTATION,
    Directory,
    Tag,
    read_directory,
    short,
    with_directory,
)
from service.imaging.tiff.layout import (
    ALPHA,
    BITS,
    BLACK_IS_ZERO,
    CMYK,
    COLORS,
    COMPRESSION,
    EXTRA_SAMPLES,
    PALETTE,
    PHOTOMETRIC,
    PREMULTIPLIED,
    SAMPLES,
    WHITE_IS_ZERO,
    Layout,
    layout_of,
)

# libtiff decodes uncompressed files too: Pillow's own way takes every YCbCr for full resolution.
TiffImagePlugin.READ_LIBTIFF = True
# libtiff tells of damage on stderr, between the lines of a log. Pillow raises for it as well.
# A library's symbols are found through those that need it; a libtiff within Pillow has none.
with suppress(AttributeError, OSError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]

# Numbers of tags.
SUBFILE_TYPE, WIDTH, HEIGHT, STRIP_ROWS, COLORMAP = 254, 256, 257, 278, 320
TILE_WIDTH, TILE_HEIGHT, SUB_IFDS, DNG_VERSION = 322, 323, 330, 50706
# Offsets and sizes of strips and of tiles: a value for each, channel after channel if planar.
CHUNKS: Final = (273, 279, 324, 325)
# FillOrder, T4Options, T6Options, Predictor, JPEGTables, and the four tags of YCbCr.
UNCHANGED: Final = (266, 292, 293, 317, 347, 529, 530, 531, 532)
KEPT: Final = (WIDTH, HEIGHT, COMPRESSION, STRIP_ROWS, TILE_WIDTH, TILE_HEIGHT, *UNCHANGED)
# Pillow's names for this many channels.
MODES: Final = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
PEAK_BYTES: Final = 14


class TiffFile(ImageFile):
    """A TIFF or BigTIFF, of which the first image counts.

    Args:
        content: The bytes of the file.

    Raises:
        InvalidImageError: The pixels are stored in a way that is not read; the error names it.
    """

    kind = "TIFF"

    def __init__(self, content: bytes) -> None:
        directory = read_directory(content)
        width, height = directory.number(WIDTH, 0), directory.number(HEIGHT, 0)
        if min(width, height) < 1:
            raise ValueError("no size")
        self.width, self.height = width, height
        _refuse_camera_raw(content, directory)
        self._layout = layout_of(directory)
        if not self._layout.is_read:
            raise InvalidImageError(
                f"this TIFF is {self._layout}, which the server does not read; send a PNG, or a "
                "TIFF of grey, RGB or CMYK with 8 or 16 bits per channel"
            )
        self._content = content
        self._directory = directory
        # A tile may be larger than the image.
        tile = (directory.number(TILE_WIDTH, 0), directory.number(TILE_HEIGHT, 0))
        self.decoded_size = max(width, tile[0]), max(height, tile[1])

    def peak_bytes(self, fit: Size | None) -> int:  # noqa: ARG002 - only JPEGs get smaller
        """An upper bound of the memory that decoding takes, copies included."""
        width, height = self.decoded_size
        return width * height * PEAK_BYTES + len(self._content)

    def header_orientation(self) -> int:
        """The orientation, which the directory tells."""
        return self._directory.number(ORIENTATION, 1)

    def decode(self, fit: Size | None) -> tuple[Pixels, int]:  # noqa: ARG002 - only JPEGs get smaller
        """Decode the pixels, as stored, and tell their orientation."""
        pixels = to_bgr(self._load_planes() if self._layout.is_planar else self._load())
        if self._layout.photometric == WHITE_IS_ZERO:
            np.invert(pixels, out=pixels)
        return pixels, self.header_orientation()

    def _load_planes(self) -> Image.Image:
        """Decode each channel as a grey image of its own, and put them together."""
        layout = self._layout
        has_alpha = layout.extra[:1] in ((PREMULTIPLIED,), (ALPHA,))
        count = COLORS[layout.photometric] + has_alpha
        grey = replace(layout, photometric=BLACK_IS_ZERO, bits=layout.bits[:1], extra=())
        planes = [to_grey8(self._load(grey, plane)) for plane in range(count)]
        mode = "CMYK" if layout.photometric == CMYK else MODES[count]
        if layout.extra[:1] == (PREMULTIPLIED,):
            mode = mode.replace("A", "a")
        return planes[0] if count == 1 else Image.merge(mode, planes)

    def _load(self, layout: Layout | None = None, plane: int = 0) -> Image.Image:
        """Decode the image, or one channel of it.

        Args:
            layout: The layout of that; by default the whole image's.
            plane: Number of the channel, if each is stored on its own.
        """
        tags = self._plain_tags(layout or self._layout, plane)
        plain = with_directory(self._content, Directory(self._directory.order, tags))
        image = open_with_pillow(plain, ("TIFF",))
        image.load()
        return image

    def _plain_tags(self, layout: Layout, plane: int) -> dict[int, Tag]:
        """The tags that decoding needs, with what Pillow may misread made plain."""
        order, tags = self._directory.order, self._directory.tags
        grey = {WHITE_IS_ZERO: BLACK_IS_ZERO}
        plain = {number: tag for number, tag in tags.items() if number in KEPT}
        plain |= {
            PHOTOMETRIC: short(order, grey.get(layout.photometric, layout.photometric)),
            SAMPLES: short(order, len(layout.bits)),
            BITS: short(order, *layout.bits),
        }
        if layout.extra:
            plain[EXTRA_SAMPLES] = short(order, *layout.extra)
        if layout.photometric == PALETTE:
            plain[COLORMAP] = _colormap_of_16_bits(self._directory)
        first, stop = (number * self._chunks_of_a_plane() for number in (plane, plane + 1))
        for number in CHUNKS:
            if number in tags:
                plain[number] = tags[number][first:stop]
        return plain

    def _chunks_of_a_plane(self) -> int:
        """How many strips or tiles a channel has, or all channels together have."""
        if TILE_WIDTH in self._directory.tags:
            across = -(-self.width // max(1, self._directory.number(TILE_WIDTH, 0)))
            return across * -(-self.height // max(1, self._directory.number(TILE_HEIGHT, 0)))
        return -(-self.height // max(1, self._directory.number(STRIP_ROWS, self.height)))


def _refuse_camera_raw(content: bytes, directory: Directory) -> None:
    """Cameras' raw files are TIFFs too, of which the first image is a thumbnail.

    Raises:
        UnsupportedTypeError: This is one.
    """
    is_thumbnail = directory.number(SUBFILE_TYPE, 0) & 1 and SUB_IFDS in directory.tags
    if is_thumbnail or DNG_VERSION in directory.tags or content[8:10] == b"CR":
        raise refusal("a camera's raw file")


def _colormap_of_16_bits(directory: Directory) -> Tag:
    """The palette as it should be; some programs write colours from 0 to 255."""
    colors = directory.numbers(COLORMAP)
    if len(colors) and colors.max() < 256:
        colors = colors.astype(np.uint16) * 257
    return short(directory.order, *map(int, colors))
