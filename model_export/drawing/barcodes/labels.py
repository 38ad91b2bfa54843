"""Print symbols flat, with or without a label."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from model_export.drawing.barcodes import lettering
from model_export.drawing.barcodes.patterns import Blend
from model_export.drawing.barcodes.surfaces import Pixels, ink_color, paper_color, stamp
from model_export.drawing.barcodes.symbols import LINEAR, QR_CODE, Modules, Symbol

Random = np.random.Generator

# Margin of a box at each end, as a share of the symbol's side. Readers need some of the quiet zone,
# and a box that cuts off the first bar is useless to them. On real photos, with a margin of 0.02,
# one symbol in twenty decoded only after 5 % were added at each end; with 0.05, one in sixty.
BOX_MARGIN: Final = 0.08
# Width of the quiet zone around a symbol, in modules; readers need 1 to 10.
QUIET_ZONE: Final = (1.0, 8.0)
INVERTED_SHARE: Final = 0.07
DIGITS_SHARE: Final = 0.65
LOGO_SHARE: Final = 0.08
BORDER_SHARE: Final = 0.2
ROUND_MODULES_SHARE: Final = 0.06
# Lines of other text beside a symbol on its label.
MAX_LINES: Final = 4


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A flat print with one symbol.

    Attributes:
        image: (h, w, 3) uint8, BGR.
        symbol_xyxy: (4,) float32, the symbol's modules on the print, pixels.
        module: Side of a module, pixels.
    """

    image: Pixels
    symbol_xyxy: NDArray[np.float32]
    module: float

    @property
    def box_xyxy(self) -> NDArray[np.float32]:
        """(4,) float32: the box to detect, pixels; it may extend beyond the print."""
        margin = BOX_MARGIN * np.tile(self.symbol_xyxy[2:] - self.symbol_xyxy[:2], 2)
        return np.asarray(self.symbol_xyxy + margin * np.array([-1, -1, 1, 1]), dtype=np.float32)


def bare(rng: Random, symbol: Symbol, module: float, quiet: float) -> Label:
    """A symbol with its quiet zone and perhaps its text, without a label.

    Args:
        rng: Source of randomness.
        symbol: The symbol to print.
        module: Side of a module, pixels.
        quiet: Width of the quiet zone, in modules.
    """
    paper, ink = _colors(rng)
    dark = magnified(symbol.modules, module)
    if symbol.class_id == QR_CODE:
        dark = _decorated(rng, dark, module)
    margin = round(quiet * module)
    digits = _digits(rng, symbol, dark.shape[1])
    below = digits.shape[0] + max(1, round(module)) if digits is not None else 0
    height, width = dark.shape
    image = np.full((height + 2 * margin + below, width + 2 * margin, 3), paper, dtype=np.uint8)
    stamp(image, dark, margin, margin, ink)
    if digits is not None:
        left = margin + (width - digits.shape[1]) // 2
        stamp(image, digits, left, margin + height + max(1, round(module)), ink)
    box = np.array([margin, margin, margin + width, margin + height], dtype=np.float32)
    return Label(image, box, module)


def label(rng: Random, symbol: Symbol, module: float) -> Label:
    """A symbol on a paper label, perhaps with lines of text and a border."""
    print_ = bare(rng, symbol, module, rng.uniform(*QUIET_ZONE))
    height, width = print_.image.shape[:2]
    left, right = (int(share * width) for share in rng.uniform(0, 0.5, size=2) ** 2)
    above, below = (int(share * min(height, width)) for share in rng.uniform(0, 1.2, size=2) ** 2)
    paper = print_.image[0, 0].astype(np.float32)
    image = np.full((height + above + below, width + left + right, 3), paper, dtype=np.uint8)
    image[above : above + height, left : left + width] = print_.image
    ink = ink_color(rng) if paper.mean() > 110 else paper_color(rng)
    _write(rng, image, 0, above, ink)
    _write(rng, image, above + height, image.shape[0], ink)
    if rng.random() < BORDER_SHARE:
        thick = int(rng.integers(1, 4))
        corner = (image.shape[1] - thick, image.shape[0] - thick)
        cv2.rectangle(image, (thick, thick), corner, ink.tolist(), thick)
    moved = print_.symbol_xyxy + np.array([left, above, left, above], dtype=np.float32)
    return Label(image, moved, module)


def magnified(modules: Modules, module: float) -> Blend:
    """Modules scaled to pixels: sharp if a module has 2 pixels or more, averaged otherwise."""
    rows, columns = modules.shape
    size = max(1, round(columns * module)), max(1, round(rows * module))
    way = cv2.INTER_NEAREST if module >= 2 else cv2.INTER_AREA
    if 1 <= module < 2:
        # Doubled first, so that the resize shrinks: INTER_AREA does not average when it enlarges.
        modules = np.repeat(np.repeat(modules, 2, axis=0), 2, axis=1)
    return np.asarray(cv2.resize(modules, size, interpolation=way), dtype=np.uint8)


def _colors(rng: Random) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    paper, ink = paper_color(rng), ink_color(rng)
    return (ink, paper) if rng.random() < INVERTED_SHARE else (paper, ink)


def _digits(rng: Random, symbol: Symbol, width: int) -> Blend | None:
    """The text to print below a linear symbol, no wider than the symbol; None for no text."""
    if symbol.class_id != LINEAR or rng.random() > DIGITS_SHARE:
        return None
    text = " " * int(rng.integers(3)) + symbol.text[:40].strip() + " "
    height = max(6, round(width * rng.uniform(0.06, 0.16)))
    ink = lettering.line(rng, height, text)
    if ink.shape[1] <= width:
        return ink
    size = width, max(1, ink.shape[0] * width // ink.shape[1])
    return np.asarray(cv2.resize(ink, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _decorated(rng: Random, dark: Blend, module: float) -> Blend:
    """A QR code that may have round modules or a logo in its middle."""
    if module >= 4 and rng.random() < ROUND_MODULES_SHARE:
        side = 2 * int(module / 2) + 1
        smooth = cv2.GaussianBlur(dark, (side, side), module / 3.5)
        dark = np.asarray(cv2.threshold(smooth, 127, 255, cv2.THRESH_BINARY)[1], dtype=np.uint8)
    if min(dark.shape) > 25 * module and rng.random() < LOGO_SHARE:
        middle = dark.shape[1] // 2, dark.shape[0] // 2
        radius = int(min(dark.shape) * rng.uniform(0.08, 0.16))
        cv2.circle(dark, middle, radius + max(1, int(module)), (0,), -1)
        cv2.circle(dark, middle, radius, (int(rng.integers(60, 220)),), -1)
    return dark


def _write(rng: Random, image: Pixels, top: int, bottom: int, ink: NDArray[np.float32]) -> None:
    """Write lines of text in the rows from `top` to `bottom`; sometimes leave them empty."""
    room = bottom - top
    if room < 9 or rng.random() < 0.25:
        return
    count = int(rng.integers(1, 1 + min(MAX_LINES, room // 8)))
    size = max(6, int(room / count * rng.uniform(0.5, 0.8)))
    x = int(image.shape[1] * rng.uniform(0, 0.3))
    for y in range(top + 2, bottom - size, max(1, room // count)):
        words = lettering.line(rng, size, letters=int(rng.integers(3, 40)))
        stamp(image[:bottom], words, x, y, ink)
