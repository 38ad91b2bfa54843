"""Measure a barcode detector on photos: found, of the right class, and decodable in its boxes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.data.image_files import decode_image
from model_export.errors import ModelExportError
from model_export.measure.barcodes.truth import GROWTH, Box, Photo, Pixels, Reader, Symbol
from model_export.measure.evaluate import Detector, Found
from service.core.suppress import iou_with

LINEAR: Final = "linear"
MIN_IOU: Final = 0.5
# The truth of a linear symbol is the line that was scanned, not the area of the bars.
MIN_COVER: Final = 0.5
GENEROUS_GROWTH: Final = 0.2


@dataclass(frozen=True, slots=True)
class SymbolOutcome:
    """How a detector did on one symbol.

    Attributes:
        symbol: The truth.
        box_iou: The best IoU of any returned box with the symbol's box.
        found: Whether a box of its class is on it.
        other_class: If none is, the class of the box on it with the highest score, if any.
        useful: Whether a returned box, its sides 10 % longer, decodes to its text.
        useful_generous: The same with sides 20 % longer, that is 10 % at either end.
        readable_whole: Whether the whole photo decodes to its text.
        readable_truth: Whether its own box, its sides 10 % longer, decodes to its text.
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
        """Whether it was not found, or is lost."""
        return not self.found or self.lost

    @property
    def lost(self) -> bool:
        """Whether no returned box decodes to its text, although the photo or its own box does."""
        return not self.useful and (self.readable_whole or self.readable_truth)


@dataclass(frozen=True, slots=True)
class PhotoOutcome:
    """How a detector did on one photo.

    Attributes:
        photo: The photo and its symbols.
        boxes: All boxes that were returned.
        symbols: The outcome of each symbol.
        strays: The boxes that are on no symbol.
        readable_strays: How many of the strays decode to some text.
    """

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
        """The share of the symbols that are found with the right class."""
        return self.found / self.symbols if self.symbols else float("nan")

    @property
    def usefulness(self) -> float:
        """The share of the symbols that decode in a returned box with sides 10 % longer."""
        return self.useful / self.symbols if self.symbols else float("nan")


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

    Their IoU must be 0.5 or more; of a linear symbol, the box must cover half of the strip.
    """
    if symbol.class_name == LINEAR:
        return cover(box.box_xyxy, symbol.box_xyxy) >= MIN_COVER
    return iou(box.box_xyxy, symbol.box_xyxy) >= MIN_IOU


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
    """The number of boxes on photos that have no symbols."""
    return sum(len(outcome.boxes) for outcome in outcomes if not outcome.photo.symbols)
