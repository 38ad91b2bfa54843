"""From Pillow's images to pixels, in bands, so that no copies of a whole image are held."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# Pixels that are converted at once. With more, threads keep megabytes of heap behind them.
BAND_PIXELS: Final = 200_000
UPRIGHT: Final = 1
# EXIF orientations that swap width and height.
SIDEWAYS: Final = (5, 6, 7, 8)


def bands(width: int, height: int) -> Iterator[slice]:
    """Rows of an image in bands, from the top."""
    rows = max(1, BAND_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def to_bgr(image: Image.Image) -> Pixels:
    """The pixels of a decoded image: (h, w, 3) uint8, BGR, with transparency laid on white."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for rows in bands(width, height):
        is_all = rows.stop - rows.start == height
        band = image if is_all else image.crop((0, rows.start, width, rows.stop))
        pixels[rows] = _grey16(band) if band.mode.startswith("I") else _on_white(band)
    return pixels


def to_grey8(image: Image.Image) -> Image.Image:
    """An image of one channel of 8 or 16 bits in 8 bits, the upper ones."""
    if not image.mode.startswith("I"):
        return image
    width, height = image.size
    grey = Image.new("L", image.size)
    for rows in bands(width, height):
        band = np.asarray(image.crop((0, rows.start, width, rows.stop)))
        grey.paste(Image.fromarray((band >> 8).astype(np.uint8)), (0, rows.start))
    return grey


def _grey16(band: Image.Image) -> Pixels:
    """16 bits keep their upper 8. The values that a PNG declares transparent become white."""
    values = np.asarray(band)
    grey = (values >> 8).astype(np.uint8)
    transparent = band.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return grey[:, :, None]


def _on_white(band: Image.Image) -> Pixels:
    if band.mode in ("La", "RGBa"):
        band = band.convert("LA" if band.mode == "La" else "RGBA")
    if band.has_transparency_data:
        white = Image.new("RGBA", band.size, "white")
        band = Image.alpha_composite(white, band.convert("RGBA"))
    rgb: Pixels = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    return rgb[:, :, ::-1]


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation from 1 to 8; any other number means upright."""
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
