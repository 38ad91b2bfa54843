"""Encode random content as symbols: arrays of modules, their smallest dark or light fields.

zxing-cpp encodes the symbols and names the formats; an independent reader can check the symbols.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import zxingcpp
from numpy.typing import NDArray
from zxingcpp import BarcodeFormat

Random = np.random.Generator
# (rows, columns) uint8, 255 where a symbol is dark, 0 where it is light; no quiet zone.
Modules = NDArray[np.uint8]
# Makes the content of a symbol, given its approximate number of characters.
Content = Callable[[Random, int], str]

CLASS_NAMES: Final = ("qr_code", "data_matrix", "aztec", "pdf417", "linear")
QR_CODE, DATA_MATRIX, AZTEC, PDF417, LINEAR = range(len(CLASS_NAMES))
# Share of the symbols for each class.
CLASS_SHARES: Final = (0.20, 0.24, 0.13, 0.15, 0.28)

ALPHANUMERIC: Final = string.ascii_uppercase + string.digits
CODE39_CHARACTERS: Final = ALPHANUMERIC + "-. $/+%"
# Most content is short, as on labels; the longest fills a page with modules.
FEWEST_CHARACTERS: Final = 3
MAX_CHARACTERS: Final = 500
# Half of the symbols hold at most this many characters, even if drawn large: few modules, as seen
# from close up.
SHORT_CHARACTERS: Final = 40
# Maximum number of attempts, with ever shorter content, when a symbol has too many modules.
ATTEMPTS: Final = 12
# Range of rectangular versions of Data Matrix: six of the standard, then its extension (DMRE).
OBLONG_VERSIONS: Final = (25, 49)
OBLONG_SHARE: Final = 0.3
# Height of the bars of linear symbols over their length.
BAR_HEIGHTS: Final = (0.12, 0.9)
# Height of the rows of stacked symbols, relative to their usual height.
ROW_STRETCH: Final = (0.67, 1.6)


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """One encoded symbol.

    Attributes:
        class_id: Index into `CLASS_NAMES`.
        format: Its format in zxing-cpp.
        text: Its content.
        modules: (rows, columns) uint8, 255 where it is dark.
    """

    class_id: int
    format: BarcodeFormat
    text: str
    modules: Modules


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to make symbols of a class.

    Attributes:
        class_id: Index into `CLASS_NAMES`.
        format: Its format in zxing-cpp.
        share: Its relative frequency within its class.
        content: Makes the text.
        options: Names of zxing-cpp's options, and the values to choose from for each.
    """

    class_id: int
    format: BarcodeFormat
    share: float
    content: Content
    options: dict[str, Sequence[int | str]] = field(default_factory=dict)


def random_symbol(rng: Random, most_modules: int) -> Symbol:
    """Encode random content.

    Args:
        rng: Source of randomness.
        most_modules: Desired maximum number of modules on the longer side; the smallest symbols of
            some formats have more.
    """
    class_id = int(rng.choice(len(CLASS_NAMES), p=CLASS_SHARES))
    # About as many characters as fit: a character takes 10 modules of the length of a linear
    # symbol, or 12 modules of a two-dimensional one.
    roomy = most_modules // 10 if class_id == LINEAR else most_modules**2 // 12
    most = MAX_CHARACTERS if rng.random() < 0.5 else SHORT_CHARACTERS
    longest = min(most, max(roomy, FEWEST_CHARACTERS + 2))
    smallest: Symbol | None = None
    for _ in range(ATTEMPTS):
        length = round(np.exp(rng.uniform(np.log(FEWEST_CHARACTERS), np.log(longest))))
        symbol = encoded(rng, random_kind(rng, class_id), length)
        if symbol is None:
            continue
        if max(symbol.modules.shape) <= most_modules:
            return symbol
        if smallest is None or max(symbol.modules.shape) < max(smallest.modules.shape):
            smallest = symbol
        longest = max(FEWEST_CHARACTERS + 1, length)
    if smallest is None:
        raise RuntimeError("no content could be encoded")
    return smallest


def random_kind(rng: Random, class_id: int) -> Kind:
    """A way to make symbols of a class, by its share."""
    kinds = [kind for kind in KINDS if kind.class_id == class_id]
    shares = np.array([kind.share for kind in kinds])
    return kinds[rng.choice(len(kinds), p=shares / shares.sum())]


def encoded(rng: Random, kind: Kind, length: int) -> Symbol | None:
    """Encode content of about `length` characters; None if it does not fit into the format."""
    text = kind.content(rng, length)
    options: dict[str, int | str] = {
        name: values[int(rng.integers(len(values)))] for name, values in kind.options.items()
    }
    if kind.format == BarcodeFormat.DataMatrix and rng.random() < OBLONG_SHARE:
        options["version"] = int(rng.integers(*OBLONG_VERSIONS))
    try:
        barcode = zxingcpp.create_barcode(text, kind.format, **options)
    except ValueError:
        return None
    drawn = np.array(barcode.to_image(scale=1, add_quiet_zones=False))
    return Symbol(kind.class_id, kind.format, text, _stretched(rng, kind, 255 - drawn))


def _stretched(rng: Random, kind: Kind, modules: Modules) -> Modules:
    """The symbol with another row height, if its format leaves that free."""
    rows, columns = modules.shape
    if kind.format in ONE_ROW:
        height = max(1, round(columns * np.exp(rng.uniform(*np.log(BAR_HEIGHTS)))))
        bars = np.repeat(modules[:1], height, axis=0)
        # The guard bars of EAN and UPC reach down between the digits.
        guards = modules[-1:] if rng.random() < 0.7 else modules[:1]
        return np.concatenate([bars, np.repeat(guards, round(0.1 * height), axis=0)])
    if kind.class_id in {PDF417, LINEAR}:
        height = max(1, round(rows * rng.uniform(*ROW_STRETCH)))
        return np.ascontiguousarray(modules[np.arange(height) * rows // height])
    return modules


def content_of(characters: str, fewest: int, most: int) -> Content:
    """Content of random `characters`, from `fewest` to `most` of them."""

    def content(rng: Random, length: int) -> str:
        return _characters(rng, characters, min(max(length, fewest), most))

    return content


def _digits(count: int, first: str = "") -> Content:
    """`count` random digits after `first`; the requested length is ignored."""

    def content(rng: Random, _length: int) -> str:
        return first + _characters(rng, string.digits, count)

    return content


def _characters(rng: Random, characters: str, count: int) -> str:
    return "".join(characters[i] for i in rng.integers(len(characters), size=count))


def _prose(rng: Random, length: int) -> str:
    """Digits, text or a web address; encoders pack each of these differently."""
    kind = rng.random()
    if kind < 0.3:
        return _characters(rng, string.digits, length)
    if kind < 0.6:
        return _characters(rng, string.ascii_letters + string.digits + " .,-/:", length)
    return "https://example.org/" + _characters(rng, string.ascii_letters + string.digits, length)


def _even_digits(rng: Random, length: int) -> str:
    return _characters(rng, string.digits, 2 * min(max(length // 2, 2), 10))


def _codabar(rng: Random, length: int) -> str:
    ends = _characters(rng, "ABCD", 2)
    return ends[0] + _characters(rng, string.digits + "-$:/.+", min(max(length, 4), 16)) + ends[1]


def _gs1(rng: Random, length: int) -> str:
    """A trade item number with its check digit, usually with a lot, sometimes with a serial number.

    In 30 % of the cases, only a lot and a production date, the shortest content.
    """
    if rng.random() < 0.3:
        lot = _characters(rng, ALPHANUMERIC, min(length, 12))
        return f"[10]{lot}[11]{rng.integers(100):02}0{rng.integers(1, 10)}{rng.integers(1, 29):02}"
    item = "9" + _characters(rng, string.digits, 12)
    weights = (3, 1) * 7
    check = -sum(int(digit) * weight for digit, weight in zip(item, weights, strict=False)) % 10
    text = f"[01]{item}{check}"
    lot, serial = (_characters(rng, ALPHANUMERIC, min(length, 20)) for _ in range(2))
    return text + ("", f"[10]{lot}", f"[10]{lot}", f"[10]{lot}[21]{serial}")[rng.integers(4)]


_F: Final = BarcodeFormat
ONE_ROW: Final = frozenset(
    {
        *(_F.EAN13, _F.EAN8, _F.UPCA, _F.UPCE, _F.Code128, _F.Code39, _F.Code93, _F.ITF),
        *(_F.Codabar, _F.DataBarOmni, _F.DataBarLtd, _F.DataBarExp),
    }
)
KINDS: Final = (
    Kind(QR_CODE, _F.QRCode, 0.94, _prose, {"ec_level": ("L", "M", "Q", "H")}),
    Kind(QR_CODE, _F.MicroQRCode, 0.03, content_of(string.digits, 3, 20)),
    Kind(QR_CODE, _F.RMQRCode, 0.03, content_of(ALPHANUMERIC, 3, 60)),
    Kind(DATA_MATRIX, _F.DataMatrix, 1.0, _prose),
    Kind(AZTEC, _F.Aztec, 0.95, _prose),
    Kind(AZTEC, _F.AztecRune, 0.05, content_of("12", 2, 2)),
    Kind(PDF417, _F.PDF417, 0.8, _prose, {"columns": (1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 16)}),
    Kind(PDF417, _F.CompactPDF417, 0.1, _prose, {"columns": (1, 2, 3, 4, 6)}),
    Kind(PDF417, _F.MicroPDF417, 0.1, content_of(ALPHANUMERIC, 3, 60)),
    Kind(LINEAR, _F.EAN13, 0.18, _digits(12)),
    Kind(LINEAR, _F.UPCA, 0.10, _digits(11)),
    Kind(LINEAR, _F.UPCE, 0.07, _digits(6, "0")),
    Kind(LINEAR, _F.EAN8, 0.05, _digits(7)),
    Kind(LINEAR, _F.Code128, 0.15, content_of(ALPHANUMERIC + string.ascii_lowercase, 3, 30)),
    Kind(LINEAR, _F.Code39, 0.10, content_of(CODE39_CHARACTERS, 2, 16)),
    Kind(LINEAR, _F.Code93, 0.04, content_of(CODE39_CHARACTERS, 2, 20)),
    Kind(LINEAR, _F.ITF, 0.09, _even_digits),
    Kind(LINEAR, _F.Codabar, 0.04, _codabar),
    Kind(LINEAR, _F.DataBarOmni, 0.04, _digits(13)),
    Kind(LINEAR, _F.DataBarStk, 0.04, _digits(13)),
    Kind(LINEAR, _F.DataBarStkOmni, 0.05, _digits(13)),
    Kind(LINEAR, _F.DataBarLtd, 0.02, _digits(12, "0")),
    Kind(LINEAR, _F.DataBarExp, 0.10, _gs1),
    Kind(LINEAR, _F.DataBarExpStk, 0.20, _gs1, {"columns": (1, 2, 2, 3, 4)}),
)
