"""Encode dense symbols: QR codes of the largest versions, PDF417 of many rows, and low strips."""

import string
from typing import Final

import numpy as np
from zxingcpp import BarcodeFormat

from model_export.drawing.barcodes.symbols import (
    ALPHANUMERIC,
    AZTEC,
    DATA_MATRIX,
    LINEAR,
    ONE_ROW,
    PDF417,
    QR_CODE,
    Kind,
    Symbol,
    content_of,
    encoded,
    random_kind,
)

Random = np.random.Generator

# Share of the dense symbols for each way to make them.
QR_SHARE: Final = 0.5
PDF417_SHARE: Final = 0.32
DATA_MATRIX_SHARE: Final = 0.1
TEXT: Final = string.ascii_letters + string.digits + " .,-/:"
# Characters in bytes that fill a QR code of version 40, by level of error correction; a share of
# `FULLNESS` of them makes versions 25 to 40.
QR_CAPACITIES: Final = {"L": 2953, "M": 2331, "Q": 1663, "H": 1273}
FULLNESS: Final = (0.42, 1.0)
# PDF417 has at most 90 rows and 928 codewords, and some of them correct errors.
PDF417_COLUMNS: Final = (2, 18)
PDF417_ROWS: Final = (26, 88)
PDF417_CODEWORDS: Final = 880
# Characters that a codeword holds, about; longer texts are shortened until they fit.
CODEWORD_CHARACTERS: Final = 1.55
SHORTER: Final = 0.9
ATTEMPTS: Final = 12


def dense_symbol(rng: Random) -> Symbol:
    """Encode so much random content that the symbol looks like texture."""
    choice = rng.random()
    if choice < QR_SHARE:
        return dense_qr_code(rng)
    if choice < QR_SHARE + PDF417_SHARE:
        return dense_pdf417(rng)
    if choice < QR_SHARE + PDF417_SHARE + DATA_MATRIX_SHARE:
        return _longest(rng, _DATA_MATRIX, int(rng.integers(500, 1500)))
    return _longest(rng, _AZTEC, int(rng.integers(550, 1900)))


def dense_qr_code(rng: Random) -> Symbol:
    """A QR code of one of the versions 25 to 40, full of text."""
    level = str(rng.choice(tuple(QR_CAPACITIES)))
    kind = Kind(QR_CODE, BarcodeFormat.QRCode, 1.0, _TEXT, {"ec_level": (level,)})
    return _longest(rng, kind, int(QR_CAPACITIES[level] * rng.uniform(*FULLNESS)))


def dense_pdf417(rng: Random) -> Symbol:
    """A PDF417 symbol of some 30 to 90 rows, full of capital letters and digits."""
    columns = int(rng.integers(*PDF417_COLUMNS))
    low, high = PDF417_ROWS
    rows = int(rng.integers(low, max(low + 1, min(high, PDF417_CODEWORDS // columns)) + 1))
    content = content_of(ALPHANUMERIC + " ", 3, 3000)
    kind = Kind(PDF417, BarcodeFormat.PDF417, 1.0, content, {"columns": (columns,)})
    return _longest(rng, kind, max(60, int(CODEWORD_CHARACTERS * (rows * columns - 64))))


def strip(rng: Random, most_modules: float, proportion: float) -> Symbol:
    """A linear symbol whose bars are low.

    Args:
        rng: Source of randomness.
        most_modules: Desired maximum of modules in its length; some formats have more.
        proportion: Its length over its height.
    """
    symbol = _one_row(rng, int(most_modules))
    rows = max(1, round(symbol.modules.shape[1] / proportion))
    return Symbol(LINEAR, symbol.format, symbol.text, np.repeat(symbol.modules[:1], rows, axis=0))


def _one_row(rng: Random, most_modules: int) -> Symbol:
    """A linear symbol of at most this number of modules, or the shorter of two that have more."""
    made: list[Symbol] = []
    while len(made) < 2:
        kind = random_kind(rng, LINEAR)
        if kind.format in ONE_ROW:
            symbol = encoded(rng, kind, int(rng.integers(3, max(5, most_modules // 12))))
            made += [symbol] if symbol else []
    fitting = [each for each in made if each.modules.shape[1] <= most_modules]
    return fitting[0] if fitting else min(made, key=lambda each: each.modules.shape[1])


def _longest(rng: Random, kind: Kind, length: int) -> Symbol:
    """A symbol of `length` characters, or of as many as fit.

    Raises:
        RuntimeError: Not even a short text fits.
    """
    for _ in range(ATTEMPTS):
        symbol = encoded(rng, kind, length)
        if symbol is not None:
            return symbol
        length = int(SHORTER * length)
    raise RuntimeError(f"{kind.format} holds less than {length} characters")


_TEXT: Final = content_of(TEXT, 3, 3000)
_DATA_MATRIX: Final = Kind(DATA_MATRIX, BarcodeFormat.DataMatrix, 1.0, _TEXT)
_AZTEC: Final = Kind(AZTEC, BarcodeFormat.Aztec, 1.0, _TEXT)
