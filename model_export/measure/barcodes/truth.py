"""Photos with barcodes, and an independent decoder that tells what is in them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import zxingcpp
from numpy.typing import NDArray

from model_export.data.image_files import decode_image
from model_export.errors import ModelExportError
from model_export.measure.coco import CocoSet, read_coco_set

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

# Box sides are lengthened by this share, half of it at either end.
GROWTH: Final = 0.1


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol of the truth; the box is x1, y1, x2, y2 of its quad's bounds in image pixels."""

    class_name: str
    text: str
    box_xyxy: Box


@dataclass(frozen=True, slots=True)
class Photo:
    """A picture file and the symbols that an independent decoder read in it."""

    path: Path
    symbols: tuple[Symbol, ...]


def read_photos(folder: Path) -> list[Photo]:
    """Read the photos and symbols that a folder's truth.json lists.

    Raises:
        ModelExportError: The file is missing or lists no photos.
    """
    file = folder / "truth.json"
    try:
        images = json.loads(file.read_text(encoding="utf-8"))["images"]
        return [
            Photo(folder / image["file"], tuple(map(_symbol, image["symbols"]))) for image in images
        ]
    except OSError as error:
        raise ModelExportError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ModelExportError(f"{file} lists no photos: {error!r}") from error


def read_drawn(file: Path, reader: "Reader") -> list[Photo]:
    """Read the pictures and boxes of a COCO json, as `demo-data --subject barcodes` writes it.

    A symbol's text is what the reader finds in its box, or "" if it finds nothing.

    Raises:
        ModelExportError: The file or a picture cannot be read; the message names it.
    """
    coco = read_coco_set(file, file.parent)
    return [
        Photo(path, tuple(_drawn_symbols(coco, image, path, reader)))
        for image, path in coco.images.items()
    ]


def _drawn_symbols(coco: CocoSet, image: int, path: Path, reader: "Reader") -> Iterator[Symbol]:
    try:
        pixels = decode_image(path.read_bytes()).pixels
    except (OSError, ModelExportError) as error:
        raise ModelExportError(f"{path}: {error}") from error
    for entry in coco.truth.imgToAnns[image]:
        x, y, width, height = entry["bbox"]
        box = (x, y, x + width, y + height)
        text = min(reader.texts(path, pixels, box, GROWTH), default="")
        yield Symbol(coco.categories[entry["category_id"]], text, box)


def _symbol(entry: dict[str, object]) -> Symbol:
    corners = np.asarray(entry["quad"], dtype=float).reshape(-1, 2)
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Symbol(str(entry["class"]), str(entry["text"]), (x1, y1, x2, y2))


class Reader:
    """Decodes parts of pictures with zxing-cpp's defaults, each part only once."""

    def __init__(self) -> None:
        self._texts: dict[tuple[Path, tuple[int, int, int, int]], frozenset[str]] = {}

    def texts(self, path: Path, pixels: Pixels, box: Box, growth: float) -> frozenset[str]:
        """The texts of all symbols, of any format, that can be read in a part of a picture.

        Args:
            path: The picture's file, by which earlier results are found.
            pixels: (h, w, 3) uint8, BGR.
            box: x1, y1, x2, y2 in image pixels.
            growth: The share by which its sides grow; the result is clipped to the picture.
        """
        corners = _grown(box, growth, pixels.shape[1], pixels.shape[0])
        key = (path, corners)
        if key not in self._texts:
            x1, y1, x2, y2 = corners
            self._texts[key] = decode(pixels[y1:y2, x1:x2])
        return self._texts[key]


def decode(pixels: Pixels) -> frozenset[str]:
    """The texts that zxing-cpp reads with its defaults in a picture, (h, w, 3) uint8 BGR."""
    if not pixels.size:
        return frozenset()
    return frozenset(each.text for each in zxingcpp.read_barcodes(np.ascontiguousarray(pixels)))


def _grown(box: Box, growth: float, width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels that contain the lengthened box, within the picture."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) * growth / 2, (y2 - y1) * growth / 2
    return (
        max(0, int(np.floor(x1 - dx))),
        max(0, int(np.floor(y1 - dy))),
        min(width, int(np.ceil(x2 + dx))),
        min(height, int(np.ceil(y2 + dy))),
    )
