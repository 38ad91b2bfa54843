"""Draw a picture: a symbol or sheet as written by software, or symbols in front of a camera."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.drawing.barcodes.decoys import decoy
from model_export.drawing.barcodes.dense.pictures import draw_dense
from model_export.drawing.barcodes.labels import Label, bare, label, magnified
from model_export.drawing.barcodes.optics import compressed, photographed
from model_export.drawing.barcodes.placing import Placement, Points, place
from model_export.drawing.barcodes.surfaces import (
    Pixels,
    ink_color,
    page,
    paper_color,
    patterned,
    surface,
)
from model_export.drawing.barcodes.symbols import Symbol, random_symbol
from model_export.samples.geometry import Picture, quarter_turned

Random = np.random.Generator

# Share of the pictures with symbols so dense that they look like texture, or with low strips.
DENSE_SHARE: Final = 0.3
# Share of the other pictures that are a single symbol, a sheet of symbols, or without symbols.
BARE_SHARE: Final = 0.29
SHEET_SHARE: Final = 0.10
EMPTY_SHARE: Final = 0.23
# Share of the pictures that are finally turned by 90 degrees, as cameras and symbols often are, and
# of those that are then turned upside down: a Data Matrix has its two dark sides anywhere.
TURNED_SHARE: Final = 0.4
UPSIDE_DOWN_SHARE: Final = 0.5
# Maximum number of rows and of columns of a sheet, and the range of its field sides in pixels.
SHEET_FIELDS: Final = 4
FIELD_SIDES: Final = (70, 180)
# Longer side of a picture in pixels, and its shorter side over the longer.
LONGER_SIDES: Final = (180, 480)
ASPECTS: Final = (0.45, 1.0)
# Numbers of symbols to try to place, and the share of the pictures for each number. Many symbols
# teach more at the same training cost; few are what most photos have.
COUNTS: Final = (1, 2, 3, 5, 8, 12)
COUNT_SHARES: Final = (0.42, 0.11, 0.10, 0.12, 0.13, 0.12)
# Range of a symbol's longer side over the picture's side, the square root of its area.
SYMBOL_SIDES: Final = (0.07, 0.95)
# Minimum side of a module in pixels; readers cannot read smaller ones.
FINEST_MODULE: Final = 0.8
# Share of the symbols printed directly on the surface, if that is plain enough.
PRINTED_SHARE: Final = 0.4
# Share of these that are faint, like print on film or worn print, and how opaque their ink is.
FAINT_SHARE: Final = 0.25
FAINT_INK: Final = (0.3, 0.8)
DECOY_SHARE: Final = 0.25
COVER_SHARE: Final = 0.1
# Minimum share of a symbol's box that must lie in the picture.
MIN_IN_VIEW: Final = 0.5
PLACES_TRIED: Final = 4


def draw_scene(rng: Random) -> Picture:
    """Draw one picture; the same random numbers give the same picture.

    Args:
        rng: Source of randomness.

    Returns:
        A picture of random size and the smallest upright box around each symbol: its modules and
        a little of the quiet zone, without digits and add-ons.
    """
    # A stream of its own: the pictures are as they were before these shares, if they are 0.
    fork = rng.spawn(1)[0]
    if fork.random() < DENSE_SHARE:
        picture, rng = draw_dense(fork), fork
    else:
        picture = _upright_scene(rng)
    turns = (rng.random() < TURNED_SHARE) + 2 * (fork.random() < UPSIDE_DOWN_SHARE)
    for _ in range(turns):
        picture = quarter_turned(picture)
    return picture


def _upright_scene(rng: Random) -> Picture:
    choice = rng.random()
    if choice < BARE_SHARE:
        return _bare_scene(rng)
    if choice < BARE_SHARE + SHEET_SHARE:
        return _sheet_scene(rng)
    if choice < BARE_SHARE + SHEET_SHARE + EMPTY_SHARE:
        return _empty_scene(rng)
    return _camera_scene(rng)


def _bare_scene(rng: Random) -> Picture:
    """A symbol as software writes it to a file, with no margin up to a wide one."""
    symbol = random_symbol(rng, most_modules=int(np.exp(rng.uniform(np.log(20), np.log(190)))))
    longest = max(symbol.modules.shape)
    module = float(np.exp(rng.uniform(np.log(1), np.log(max(1.0, 480 / longest)))))
    if rng.random() < 0.6:
        module = float(round(module))
    print_ = bare(rng, symbol, module, _quiet(rng))
    image = print_.image
    if rng.random() < 0.25:
        image = photographed(rng, image, module)
    elif rng.random() < 0.25:
        image = compressed(rng, image)
    return _picture(image, [print_.box_xyxy], [symbol.class_id])


def _quiet(rng: Random) -> float:
    """Width in modules of the quiet zone of a symbol in its own file; 0 in a third of the cases."""
    choice = rng.random()
    if choice < 0.33:
        return 0.0
    return float(rng.uniform(0, 5) if choice < 0.85 else rng.uniform(5, 25))


def _sheet_scene(rng: Random) -> Picture:
    """Symbols in rows and columns, as on a page of labels or in a manual; some fields have none."""
    rows, columns = (int(count) for count in rng.integers(1, SHEET_FIELDS + 1, size=2))
    side = int(rng.integers(*FIELD_SIDES))
    tall = max(40, int(side * rng.uniform(0.5, 1)))
    image = np.full((rows * tall, columns * side, 3), paper_color(rng), dtype=np.uint8)
    boxes, class_ids = [], []
    for row, column in np.ndindex(rows, columns):
        field = image[row * tall : (row + 1) * tall, column * side : (column + 1) * side]
        if rng.random() < 0.12:
            field[:] = page(rng, tall, side)
            continue
        symbol = random_symbol(rng, most_modules=side // 2)
        largest = min(0.98 * side / symbol.modules.shape[1], 0.8 * tall / symbol.modules.shape[0])
        print_ = bare(rng, symbol, largest * rng.uniform(0.5, 0.95), quiet=0.5)
        height, width = print_.image.shape[:2]
        if height > tall or width > side:
            continue
        y, x = int(rng.integers(tall - height + 1)), int(rng.integers(side - width + 1))
        field[y : y + height, x : x + width] = print_.image
        corner = np.array([column * side + x, row * tall + y] * 2, dtype=np.float32)
        boxes.append(print_.box_xyxy + corner)
        class_ids.append(symbol.class_id)
    if rng.random() < 0.4:
        image = photographed(rng, image, finest=1.5)
    return _picture(image, boxes, class_ids)


def _empty_scene(rng: Random) -> Picture:
    """A picture without symbols: a pattern or surface, seen from close up like real fabrics."""
    height, width = _size(rng)
    image = patterned(rng, height, width) if rng.random() < 0.7 else surface(rng, height, width)
    if rng.random() < 0.4:
        _add_decoys(rng, image, [])
    return _picture(photographed(rng, image, finest=3.0), [], [])


def _camera_scene(rng: Random) -> Picture:
    height, width = _size(rng)
    image = surface(rng, height, width)
    outlines: list[Points] = []
    class_ids: list[int] = []
    modules: list[float] = []
    taken: list[Points] = []
    if rng.random() < DECOY_SHARE:
        _add_decoys(rng, image, taken)
    count = int(rng.choice(COUNTS, p=COUNT_SHARES))
    for _ in range(count):
        side = np.sqrt(height * width) * _symbol_side(rng, count)
        symbol = random_symbol(rng, most_modules=max(10, int(side / FINEST_MODULE)))
        module = side / max(symbol.modules.shape)
        outline = _add_symbol(rng, image, symbol, module, taken)
        if outline is not None:
            outlines.append(outline)
            class_ids.append(symbol.class_id)
            modules.append(module)
    if rng.random() < COVER_SHARE:
        _cover(rng, image, outlines)
    image = photographed(rng, image, min(modules, default=3.0))
    return _picture(image, [_ends(outline) for outline in outlines], class_ids)


def _symbol_side(rng: Random, count: int) -> float:
    """A symbol's longer side over the picture's side, the square root of its area.

    Most single symbols are large, as people hold the camera close; others may have any size.
    """
    smallest, largest = SYMBOL_SIDES
    if count == 1 and rng.random() < 0.65:
        return float(rng.uniform(0.3, largest))
    limit = min(largest, 1.2 / np.sqrt(count))
    return float(np.exp(rng.uniform(np.log(smallest), np.log(limit))))


def _size(rng: Random) -> tuple[int, int]:
    longer = int(rng.integers(*LONGER_SIDES))
    shorter = int(longer * min(1.0, rng.uniform(ASPECTS[0], 1.2 * ASPECTS[1])))
    return (shorter, longer) if rng.random() < 0.6 else (longer, shorter)


def _add_symbol(
    rng: Random, image: Pixels, symbol: Symbol, module: float, taken: list[Points]
) -> Points | None:
    """Draw a symbol where there is room, and return its outline; None if there is no room."""
    if rng.random() < PRINTED_SHARE:
        ink = _ink_only(symbol, module)
        placement = _free_place(rng, image, ink, taken)
        color = _legible_ink(rng, image, placement.outline(ink.box_xyxy)) if placement else None
        if placement and color is not None:
            placement.paint_ink(image, ink.image[:, :, 0], color)
            taken.append(placement.whole())
            return placement.outline(ink.box_xyxy)
    print_ = label(rng, symbol, module)
    placement = _free_place(rng, image, print_, taken)
    if placement is None:
        return None
    placement.paint(image, print_.image)
    taken.append(placement.whole())
    return placement.outline(print_.box_xyxy)


def _free_place(
    rng: Random, image: Pixels, print_: Label, taken: Sequence[Points]
) -> Placement | None:
    """A placement in view where a print touches no other, or None if none was found."""
    for _ in range(PLACES_TRIED):
        placement = _random_place(rng, image, print_.image.shape[:2])
        if _in_view(placement.outline(print_.box_xyxy), image):
            whole = placement.whole()
            if not any(_touch(whole, other) for other in taken):
                return placement
    return None


def _ink_only(symbol: Symbol, module: float) -> Label:
    """A symbol without paper: the first plane of the image is its ink."""
    dark = magnified(symbol.modules, module)
    margin = max(1, round(2 * module))
    ink = cv2.copyMakeBorder(dark, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0)
    height, width = dark.shape
    box = np.array([margin, margin, margin + width, margin + height], dtype=np.float32)
    return Label(np.asarray(ink, dtype=np.uint8)[:, :, np.newaxis], box, module)


def _random_place(rng: Random, image: Pixels, shape: tuple[int, int]) -> Placement:
    height, width = image.shape[:2]
    # Most prints lie within the picture; the border cuts some. Large ones are centred.
    x, y = rng.uniform(0.05, 0.95, size=2) * (width, height)
    if max(shape) > 0.7 * min(height, width):
        x, y = rng.normal(0.5, 0.08, size=2) * (width, height)
    return place(rng, shape, (float(x), float(y)))


def _legible_ink(rng: Random, image: Pixels, outline: Points) -> NDArray[np.float32] | None:
    """A colour that contrasts with the background, or None if that is uneven or mid-grey."""
    x1, y1, x2, y2 = _in_picture(_ends(outline), image).astype(int)
    behind = image[y1 : y2 + 1 : 2, x1 : x2 + 1 : 2]
    if behind.size == 0 or behind.std(axis=(0, 1)).max() > 22:
        return None
    level = float(behind.mean())
    if 60 <= level <= 110:
        return None
    color = ink_color(rng) if level > 110 else paper_color(rng)
    if rng.random() >= FAINT_SHARE:
        return color
    ground = behind.mean(axis=(0, 1), dtype=np.float32)
    return np.asarray(ground + rng.uniform(*FAINT_INK) * (color - ground), dtype=np.float32)


def _in_view(outline: Points, image: Pixels) -> bool:
    """Whether enough of an outline lies in the picture, and is large enough to be seen."""
    box = _in_picture(_ends(outline), image)
    low, high = outline.min(axis=0), outline.max(axis=0)
    shown = np.prod(np.maximum(box[2:] - box[:2], 0)) / max(1e-6, float(np.prod(high - low)))
    return bool(shown >= MIN_IN_VIEW and (box[2:] - box[:2]).min() >= 4)


def _touch(first: Points, second: Points) -> bool:
    """Whether the upright boxes around two outlines overlap."""
    apart = (first.min(axis=0) >= second.max(axis=0)) | (second.min(axis=0) >= first.max(axis=0))
    return not bool(apart.any())


def _ends(outline: Points) -> NDArray[np.float32]:
    """(4,) float32: the upright box around an outline."""
    return np.concatenate([outline.min(axis=0), outline.max(axis=0)]).astype(np.float32)


def _in_picture(boxes_xyxy: NDArray[np.float32], image: Pixels) -> NDArray[np.float32]:
    """(..., 4) float32: boxes clipped to the picture."""
    height, width = image.shape[:2]
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.asarray(np.clip(boxes_xyxy, 0, limits))


def _cover(rng: Random, image: Pixels, outlines: Sequence[Points]) -> None:
    """Draw a stroke or blot over each symbol, like pens, fingers and dirt."""
    for outline in outlines:
        low, high = outline.min(axis=0), outline.max(axis=0)
        side = float((high - low).min())
        start, end = rng.uniform(low, high, size=(2, 2)).astype(int).tolist()
        color = rng.integers(0, 256, size=3).tolist()
        if rng.random() < 0.5:
            cv2.line(image, start, end, color, max(1, int(side * rng.uniform(0.03, 0.2))))
        else:
            axes = [max(1, int(side * share)) for share in rng.uniform(0.06, 0.22, size=2)]
            cv2.ellipse(image, start, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)


def _add_decoys(rng: Random, image: Pixels, taken: list[Points]) -> None:
    """Draw prints that resemble symbols but are not symbols."""
    shortest = min(image.shape[:2])
    for _ in range(int(rng.integers(1, 4))):
        height, width = (int(side) for side in shortest * rng.uniform(0.1, 0.6, size=2))
        print_ = decoy(rng, max(12, height), max(12, width))
        placement = _random_place(rng, image, print_.shape[:2])
        whole = placement.whole()
        if not any(_touch(whole, other) for other in taken):
            placement.paint(image, print_)
            taken.append(whole)


def _picture(
    image: Pixels, boxes: Sequence[NDArray[np.float32]], class_ids: Sequence[int]
) -> Picture:
    return Picture(
        np.ascontiguousarray(image),
        _in_picture(np.array(boxes, dtype=np.float32).reshape(-1, 4), image),
        np.array(class_ids, dtype=np.int64),
    )
