"""A sheet of the photos on which a barcode detector does worst."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.measure.barcodes.photos import PhotoOutcome

Pixels = NDArray[np.uint8]

SIDE, CAPTION, COLUMNS = 300, 62, 6
TRUTH, FOUND, STRAY, INK = (0, 170, 0), (230, 100, 0), (0, 0, 230), (20, 20, 20)


def draw_sheet(outcomes: list[PhotoOutcome], path: Path, most: int) -> None:
    """Draw the photos with a fault, the worst first: truth green, boxes blue, strays red."""
    worst = sorted((each for each in outcomes if _badness(each)), key=_badness, reverse=True)
    tiles = [_tile(each) for each in worst[:most]]
    if not tiles:
        print("no faults to draw")
        return
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[at : at + COLUMNS]) for at in range(0, len(tiles), COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows), [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{path}: {len(worst)} photos with a fault, {min(len(worst), most)} drawn")


def _badness(outcome: PhotoOutcome) -> float:
    """False alarms weigh most, then misses, wrong classes, boxes that do not decode."""
    if not outcome.photo.symbols:
        return 4.0 * len(outcome.boxes)
    return sum(
        2.0 * (not each.found) - 0.5 * (each.other_class is not None) + 1.0 * each.lost
        for each in outcome.symbols
    )


def _tile(outcome: PhotoOutcome) -> Pixels:
    pixels = cv2.imread(str(outcome.photo.path), cv2.IMREAD_COLOR)
    height, width = pixels.shape[:2]
    scale = min(SIDE / width, SIDE / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    tile = np.full((SIDE + CAPTION, SIDE, 3), 255, np.uint8)
    tile[: size[1], : size[0]] = small
    for each in outcome.symbols:
        _frame(tile, each.symbol.box_xyxy, scale, TRUTH)
    for box in outcome.boxes:
        _frame(tile, box.box_xyxy, scale, STRAY if box in outcome.strays else FOUND)
    for line, text in enumerate(_captions(outcome)):
        at = (3, SIDE + 13 + 15 * line)
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return tile


def _frame(tile: Pixels, box: tuple[float, ...], scale: float, color: tuple[int, ...]) -> None:
    x1, y1, x2, y2 = (round(value * scale) for value in box)
    cv2.rectangle(tile, (x1, y1), (x2, min(y2, SIDE - 1)), color, 2)


def _captions(outcome: PhotoOutcome) -> Iterator[str]:
    """At most four lines: the file, the outcome of two symbols, and the boxes."""
    yield f"{outcome.photo.path.parent.name}/{outcome.photo.path.name}"
    for each in outcome.symbols[:2]:
        fate = "found" if each.found else f"missed, IoU {each.box_iou:.2f}"
        fate = f"as {each.other_class}" if each.other_class else fate
        yield f"{each.symbol.class_name}: {fate}, {'' if each.useful else 'not '}decoded"
    best = sorted(outcome.boxes, key=lambda box: -box.score)[:3]
    yield "boxes: " + (", ".join(f"{box.class_name} {box.score:.2f}" for box in best) or "none")
