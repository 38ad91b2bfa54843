"""Draw pictures of dense symbols and of low strips, at the sizes at which people have them.

A server shrinks pictures to a few hundred pixels without averaging, so that the modules of a dense
symbol become texture and moire: pages are drawn several times as large as a detector sees them.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from model_export.drawing.barcodes import lettering
from model_export.drawing.barcodes.decoys import decoy
from model_export.drawing.barcodes.dense.sheet import Sheet
from model_export.drawing.barcodes.dense.symbols import (
    dense_pdf417,
    dense_qr_code,
    dense_symbol,
    strip,
)
from model_export.drawing.barcodes.labels import Label, bare, label
from model_export.drawing.barcodes.placing import place
from model_export.drawing.barcodes.surfaces import (
    Pixels,
    ink_color,
    page,
    paper_color,
    stamp,
    surface,
)
from model_export.drawing.barcodes.symbols import LINEAR, Symbol
from model_export.samples.geometry import Picture

Random = np.random.Generator
# Makes the next symbol of a page.
Source = Callable[[Random], Symbol]

# Share of the pictures that are filled by one symbol, a page of symbols, a photo or a page of
# strips; the rest are a strip in its own file.
FILLING_SHARE: Final = 0.27
PAGE_SHARE: Final = 0.37
CAMERA_SHARE: Final = 0.12
STRIPS_SHARE: Final = 0.16
# Share of the pages for QR codes and for PDF417; the rest have any dense symbols.
QR_PAGES: Final = 0.4
PDF417_PAGES: Final = 0.35
# Longer side of a page, pixels, and the side at which a detector sees it.
PAGE_SIDES: Final = (320, 1150)
PHOTO_SIDES: Final = (300, 800)
SEEN_SIDE: Final = 384
# Rows and columns of a page's grid: mostly one field or four.
GRIDS: Final = ((1, 1), (1, 1), (2, 1), (1, 2), (2, 2), (2, 2), (4, 1), (4, 1), (3, 2))
# Share of the fields that have a look-alike or nothing.
OTHER_SHARE: Final = 0.15
# Range of a symbol's size over that of its field, and of its modules as the detector sees them.
FIELD_SHARES: Final = (0.4, 0.96)
LARGE: Final = (0.6, 0.96)
FOUR: Final = ((4, 1), (2, 2))
FINEST_SEEN: Final = 0.45
QUIET_ZONE: Final = (1.0, 5.0)
# Height of a strip's bars as the detector sees them, pixels, and its length over the picture's.
STRIP_HEIGHTS: Final = (4.5, 20.0)
STRIP_LENGTHS: Final = (0.2, 0.92)
LONE_STRIP_LENGTHS: Final = (120, 700)
MAX_STRIPS: Final = 6
# Minimum side of a strip's modules in the picture, pixels.
FINEST_MODULE: Final = 0.8
# Minimum share of a box that a camera sees, and how often another place is tried.
MIN_IN_VIEW: Final = 0.6
PLACES_TRIED: Final = 6


def draw_dense(rng: Random) -> Picture:
    """Draw one picture of dense symbols or low strips, upright; a few have only look-alikes."""
    choice = rng.random()
    if choice < FILLING_SHARE:
        return filling(rng, dense_symbol(rng))
    choice -= FILLING_SHARE
    if choice < PAGE_SHARE:
        kind = rng.random()
        other = dense_pdf417 if kind < QR_PAGES + PDF417_PAGES else dense_symbol
        source = dense_qr_code if kind < QR_PAGES else other
        return dense_page(rng, source, GRIDS[rng.integers(len(GRIDS))])
    choice -= PAGE_SHARE
    if choice < CAMERA_SHARE:
        return _camera(rng)
    return strips_page(rng) if choice < CAMERA_SHARE + STRIPS_SHARE else lone_strip(rng)


def draw_measured(rng: Random, number: int) -> Picture:
    """Draw one picture of a set to measure on, whose kinds take turns.

    They are a QR code that fills its picture, a large one on a page, four on a page, four PDF417
    symbols on a page, a page of low strips, and a low strip in its own file.

    Args:
        rng: Source of randomness.
        number: The number of the picture in the set.
    """
    turns: tuple[Callable[[], Picture], ...] = (
        lambda: filling(rng, dense_qr_code(rng)),
        lambda: dense_page(rng, dense_qr_code, (1, 1), LARGE),
        lambda: dense_page(rng, dense_qr_code, (2, 2)),
        lambda: dense_page(rng, dense_pdf417, FOUR[rng.integers(len(FOUR))]),
        lambda: strips_page(rng),
        lambda: lone_strip(rng),
    )
    return turns[number % len(turns)]()


def filling(rng: Random, symbol: Symbol) -> Picture:
    """A dense symbol that fills its picture, with a quiet zone of up to 6 modules."""
    largest = PAGE_SIDES[1] / max(symbol.modules.shape)
    module = float(rng.uniform(0.9, min(4.0, max(1.0, largest))))
    if rng.random() < 0.6:
        module = float(round(module))
    quiet = 0.0 if rng.random() < 0.3 else float(rng.uniform(0, 6))
    print_ = bare(rng, symbol, module, quiet)
    return Sheet(print_.image, [print_.box_xyxy], [symbol.class_id], module).developed(rng)


def dense_page(
    rng: Random, source: Source, grid: tuple[int, int], shares: tuple[float, float] = FIELD_SHARES
) -> Picture:
    """A page of text with dense symbols in the fields of a grid.

    Args:
        rng: Source of randomness.
        source: Makes each symbol.
        grid: Rows and columns.
        shares: Range of a symbol's size over that of its field.
    """
    sheet = Sheet(_paper(rng))
    height, width = sheet.image.shape[:2]
    tall, wide = height // grid[0], width // grid[1]
    for row, column in np.ndindex(*grid):
        y, x = row * tall, column * wide
        if rng.random() < OTHER_SHARE:
            _look_alike(rng, sheet.image[y : y + tall, x : x + wide])
            continue
        symbol = source(rng)
        print_ = _fitting(rng, symbol, (tall, wide), max(height, width), shares)
        if print_ is not None:
            y += int(rng.integers(0, tall - print_.image.shape[0] + 1))
            x += int(rng.integers(0, wide - print_.image.shape[1] + 1))
            sheet.paste(print_, symbol.class_id, x, y)
    return sheet.developed(rng)


def strips_page(rng: Random) -> Picture:
    """A page of text with a few linear symbols whose bars are low."""
    sheet = Sheet(_paper(rng))
    height, width = sheet.image.shape[:2]
    bands = int(rng.integers(1, MAX_STRIPS + 1))
    tall = height // bands
    for band in range(bands):
        low = _strip_height(rng) * max(height, width) / SEEN_SIDE
        print_ = _strip(rng, width * rng.uniform(*STRIP_LENGTHS), low)
        rest_y, rest_x = tall - print_.image.shape[0], width - print_.image.shape[1]
        if rest_y >= 0 and rest_x >= 0:
            x, y = int(rng.integers(0, rest_x + 1)), int(rng.integers(0, rest_y + 1))
            sheet.paste(print_, LINEAR, x, band * tall + y)
    return sheet.developed(rng)


def lone_strip(rng: Random) -> Picture:
    """A low strip in its own file."""
    length = float(rng.uniform(*LONE_STRIP_LENGTHS))
    print_ = _strip(rng, length, _strip_height(rng) * length / SEEN_SIDE)
    return Sheet(print_.image, [print_.box_xyxy], [LINEAR], print_.module).developed(rng)


def _strip_height(rng: Random) -> float:
    """Height of bars as the detector sees them, pixels; low ones are as frequent as high ones."""
    return float(np.exp(rng.uniform(*np.log(STRIP_HEIGHTS))))


def _strip(rng: Random, length: float, height: float) -> Label:
    symbol = strip(rng, length / FINEST_MODULE, length / height)
    return bare(rng, symbol, length / symbol.modules.shape[1], rng.uniform(*QUIET_ZONE))


def _fitting(
    rng: Random,
    symbol: Symbol,
    room: tuple[int, int],
    side: int,
    shares: tuple[float, float],
) -> Label | None:
    """A print of a symbol for a field of some height and width; None if modules became too small.

    Args:
        rng: Source of randomness.
        symbol: The symbol.
        room: Height and width of the field, pixels.
        side: Longer side of the page, pixels.
        shares: Range of the symbol's size over that of the field.
    """
    quiet = float(rng.uniform(*QUIET_ZONE))
    rows, columns = symbol.modules.shape
    largest = min((room[0] - 4) / (rows + 2 * quiet + 2), (room[1] - 4) / (columns + 2 * quiet + 2))
    finest = FINEST_SEEN * side / SEEN_SIDE
    if largest < finest:
        return None
    module = max(finest, float(largest * rng.uniform(*shares)))
    if module > 1 and rng.random() < 0.5:
        module = float(int(module))
    return bare(rng, symbol, module, quiet)


def _paper(rng: Random) -> Pixels:
    """An empty or written page."""
    longer = int(np.exp(rng.uniform(*np.log(PAGE_SIDES))))
    shorter = int(longer * rng.uniform(0.65, 1))
    height, width = (longer, shorter) if rng.random() < 0.7 else (shorter, longer)
    if rng.random() < 0.4:
        return np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    return page(rng, height, width)


def _look_alike(rng: Random, field: Pixels) -> None:
    """Put something on a field that is as fine as a dense symbol, but is none."""
    height, width = (int(side * rng.uniform(0.3, 0.9)) for side in field.shape[:2])
    if height < 12 or width < 12:
        return
    kind = rng.random()
    if kind < 0.4:
        print_ = _grain(rng, height, width)
    elif kind < 0.7:
        print_ = _fine_print(rng, height, width)
    else:
        print_ = decoy(rng, height, width) if kind < 0.85 else surface(rng, height, width)
    y, x = (
        int(rng.integers(0, room)) for room in (field.shape[0] - height, field.shape[1] - width)
    )
    field[y : y + height, x : x + width] = print_


def _grain(rng: Random, height: int, width: int) -> Pixels:
    """Random dark and light spots, without the finder patterns and edges of symbols."""
    module = int(rng.integers(1, 5))
    shape = (height // module + 1, width // module + 1)
    grey = cv2.GaussianBlur(
        rng.integers(0, 256, shape, dtype=np.uint8), (0, 0), float(rng.uniform(0.3, 1.5))
    )
    dark = np.kron(grey > np.median(grey), np.ones((module, module), dtype=np.bool_))
    # Ragged, so that it is no rectangle.
    middle, axes = (width // 2, height // 2), (width // 2, height // 2)
    mask = cv2.ellipse(np.zeros((height, width), np.uint8), middle, axes, 0, 0, 360, (1,), -1)
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    image[dark[:height, :width] & (mask > 0)] = ink_color(rng)
    return image


def _fine_print(rng: Random, height: int, width: int) -> Pixels:
    """Lines of the smallest letters."""
    image = np.full((height, width, 3), paper_color(rng), dtype=np.uint8)
    size, ink = int(rng.integers(6, 10)), ink_color(rng)
    for y in range(2, height - size, size + 1):
        stamp(image, lettering.line(rng, size, letters=width // 3), 2, y, ink)
    return image


def _camera(rng: Random) -> Picture:
    """A dense symbol on a label in front of a camera."""
    longer = int(rng.integers(*PHOTO_SIDES))
    height, width = longer, int(longer * rng.uniform(0.6, 1))
    sheet = Sheet(surface(rng, height, width))
    symbol = dense_symbol(rng)
    module = width * rng.uniform(0.4, 0.95) / max(symbol.modules.shape)
    print_ = label(rng, symbol, module)
    for _ in range(PLACES_TRIED):
        x, y = rng.normal(0.5, 0.06, size=2) * (width, height)
        placement = place(rng, print_.image.shape[:2], (float(x), float(y)))
        outline = placement.outline(print_.box_xyxy)
        box = np.concatenate([outline.min(axis=0), outline.max(axis=0)]).astype(np.float32)
        inside = np.clip(box, 0, np.array([width, height] * 2, dtype=np.float32))
        if np.prod(inside[2:] - inside[:2]) >= MIN_IN_VIEW * np.prod(box[2:] - box[:2]):
            placement.paint(sheet.image, print_.image)
            sheet.add(box, symbol.class_id, module)
            break
    return sheet.developed(rng)
