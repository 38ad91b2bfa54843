"""Measure a barcode detector on photos: found, of the right class, and decodable where it says."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import zxingcpp
from numpy.typing import NDArray

from model_export.data.image_files import decode_image
from model_export.errors import ModelExportError
from model_export.measure.coco import CocoSet, read_coco_set
from model_export.measure.evaluate import Detector, Found
from service.core.suppress import iou_with

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

LINEAR: Final = "linear"
LEAST_IOU: Final = 0.5
# The truth of a linear symbol is the line that was scanned, not the bars' area.
LEAST_COVER: Final = 0.5
# Box sides are lengthened by this share: half of it at either end.
GROWTH: Final = 0.1
GENEROUS_GROWTH: Final = 0.2


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


@dataclass(frozen=True, slots=True)
class SymbolOutcome:
    """What became of one symbol.

    Attributes:
        symbol: The truth.
        box_iou: The best IoU of any returned box with the symbol's.
        found: Some box of its class is on it.
        other_class: The class of the surest box on it where none has its own, else None.
        useful: Some returned box, its sides 10 % longer, decodes to its text.
        useful_generous: The same with sides 20 % longer, that is 10 % at either end.
        readable_whole: The whole photo decodes to its text: no detector is of use without.
        readable_truth: Its own box, with sides 10 % longer, does.
    """

    symbol: Symbol
    box_iou: float
    found: bool
    other_class: str | None
    useful: bool
    useful_generous: bool
    readable_whole: bool
    readable_truth: bool

    @property
    def faulty(self) -> bool:
        """It was not found, or no box decodes to what can be read elsewhere."""
        return not self.found or self.lost

    @property
    def lost(self) -> bool:
        """No box decodes to its text, though the photo or the truth's box does."""
        return not self.useful and (self.readable_whole or self.readable_truth)


@dataclass(frozen=True, slots=True)
class PhotoOutcome:
    """A photo's boxes, its symbols' fates, the boxes on none, and which of those decode."""

    photo: Photo
    boxes: tuple[Found, ...]
    symbols: tuple[SymbolOutcome, ...]
    strays: tuple[Found, ...]
    readable_strays: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the symbols of some classes."""

    symbols: int
    found: int
    useful: int
    useful_generous: int
    readable_whole: int
    readable_truth: int

    @property
    def recall(self) -> float:
        """Share of the symbols that are found with the right class."""
        return self.found / self.symbols if self.symbols else float("nan")

    @property
    def usefulness(self) -> float:
        """Share of the symbols that decode in a returned box with sides 10 % longer."""
        return self.useful / self.symbols if self.symbols else float("nan")


def read_photos(folder: Path) -> list[Photo]:
    """Read the photos and symbols that a folder's truth.json lists.

    Raises:
        ModelExportError: There is none, or it is not as it should be.
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

    A symbol's text is what the reader finds in its box, and "" where that is nothing.

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
    """Decodes parts of pictures by zxing-cpp's defaults, each only once."""

    def __init__(self) -> None:
        self._texts: dict[tuple[Path, tuple[int, int, int, int]], frozenset[str]] = {}

    def texts(self, path: Path, pixels: Pixels, box: Box, growth: float) -> frozenset[str]:
        """The texts of every symbol, of any format, that is read in a part of a picture.

        Args:
            path: The picture's name, for what was read before.
            pixels: (h, w, 3) uint8, BGR.
            box: x1, y1, x2, y2 in image pixels.
            growth: How much longer its sides are made, as a share; then it is cut at the border.
        """
        corners = _grown(box, growth, pixels.shape[1], pixels.shape[0])
        key = (path, corners)
        if key not in self._texts:
            x1, y1, x2, y2 = corners
            self._texts[key] = decode(pixels[y1:y2, x1:x2])
        return self._texts[key]


def decode(pixels: Pixels) -> frozenset[str]:
    """The texts that zxing-cpp reads in a picture, (h, w, 3) uint8 BGR, by its defaults."""
    if not pixels.size:
        return frozenset()
    return frozenset(each.text for each in zxingcpp.read_barcodes(np.ascontiguousarray(pixels)))


def _grown(box: Box, growth: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Whole pixels that hold the grown box, within the picture."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) * growth / 2, (y2 - y1) * growth / 2
    return (
        max(0, int(np.floor(x1 - dx))),
        max(0, int(np.floor(y1 - dy))),
        min(width, int(np.ceil(x2 + dx))),
        min(height, int(np.ceil(y2 + dy))),
    )


def measure_photos(
    detector: Detector, photos: Sequence[Photo], reader: Reader, on_photo: Callable[[], None]
) -> list[PhotoOutcome]:
    """Run a detector on every photo and judge what it returns.

    Raises:
        ModelExportError: A photo cannot be read or the detector fails; the message names the file.
    """
    outcomes = []
    for photo in photos:
        try:
            content = photo.path.read_bytes()
            found, pixels = tuple(detector.detect(content)), decode_image(content).pixels
        except (OSError, ModelExportError) as error:
            raise ModelExportError(f"{photo.path}: {error}") from error
        outcomes.append(judge(photo, pixels, found, reader))
        on_photo()
    return outcomes


def judge(photo: Photo, pixels: Pixels, boxes: tuple[Found, ...], reader: Reader) -> PhotoOutcome:
    """Compare the boxes of a photo with its symbols; `pixels` is (h, w, 3) uint8, BGR."""

    def texts(box: Box, growth: float) -> frozenset[str]:
        return reader.texts(photo.path, pixels, box, growth)

    strict = frozenset[str]().union(*(texts(box.box_xyxy, GROWTH) for box in boxes))
    generous = frozenset[str]().union(*(texts(box.box_xyxy, GENEROUS_GROWTH) for box in boxes))
    whole = texts((0, 0, pixels.shape[1], pixels.shape[0]), 0)
    symbols = tuple(
        SymbolOutcome(
            symbol=symbol,
            box_iou=max((iou(box.box_xyxy, symbol.box_xyxy) for box in boxes), default=0.0),
            found=any(is_on(box, symbol) and _same_class(box, symbol) for box in boxes),
            other_class=_other_class(boxes, symbol),
            useful=symbol.text in strict,
            useful_generous=symbol.text in generous,
            readable_whole=symbol.text in whole,
            readable_truth=symbol.text in texts(symbol.box_xyxy, GROWTH),
        )
        for symbol in photo.symbols
    )
    strays = tuple(box for box in boxes if not any(is_on(box, each) for each in photo.symbols))
    readable = sum(bool(texts(box.box_xyxy, GROWTH)) for box in strays)
    return PhotoOutcome(photo, boxes, symbols, strays, readable)


def _other_class(boxes: Sequence[Found], symbol: Symbol) -> str | None:
    on_it = sorted((box for box in boxes if is_on(box, symbol)), key=lambda box: -box.score)
    if not on_it or any(_same_class(box, symbol) for box in on_it):
        return None
    return on_it[0].class_name


def _same_class(box: Found, symbol: Symbol) -> bool:
    return box.class_name == symbol.class_name


def is_on(box: Found, symbol: Symbol) -> bool:
    """Whether a box is where a symbol is, whatever its class.

    That is an IoU of 0.5 at least, but for a linear symbol that half of its strip is covered.
    """
    if symbol.class_name == LINEAR:
        return cover(box.box_xyxy, symbol.box_xyxy) >= LEAST_COVER
    return iou(box.box_xyxy, symbol.box_xyxy) >= LEAST_IOU


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, x1, y1, x2, y2."""
    boxes_xyxy = np.array([one, other], dtype=np.float32)
    return float(iou_with(boxes_xyxy[0], boxes_xyxy[1:])[0])


def cover(box: Box, strip: Box) -> float:
    """The share of a strip, which may be a line without an area, that lies in a box."""
    x1, y1, x2, y2 = strip
    thick = (x1 - 0.5, y1 - 0.5, x2 + 0.5, y2 + 0.5)
    return _area(_common(box, thick)) / _area(thick)


def _common(one: Box, other: Box) -> Box:
    return (
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    )


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def tally(outcomes: Sequence[PhotoOutcome], class_names: Sequence[str]) -> Tally:
    """Count over the symbols of these classes."""
    chosen = [
        symbol
        for outcome in outcomes
        for symbol in outcome.symbols
        if symbol.symbol.class_name in class_names
    ]
    return Tally(
        symbols=len(chosen),
        found=sum(each.found for each in chosen),
        useful=sum(each.useful for each in chosen),
        useful_generous=sum(each.useful_generous for each in chosen),
        readable_whole=sum(each.readable_whole for each in chosen),
        readable_truth=sum(each.readable_truth for each in chosen),
    )


def false_alarms(outcomes: Sequence[PhotoOutcome]) -> int:
    """Boxes on photos that have no symbols."""
    return sum(len(outcome.boxes) for outcome in outcomes if not outcome.photo.symbols)
