"""Draw lines of text as ink masks."""

import string
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

Random = np.random.Generator
# (h, w) uint8: the coverage of each pixel by ink, 0 to 255.
Ink = NDArray[np.uint8]

# The fonts of matplotlib with Latin letters; its mathematical fonts are left out.
FONT_PATTERNS: Final = ("DejaVuSans*.ttf", "DejaVuSerif*.ttf", "STIXGeneral*.ttf")
LETTERS: Final = "eeeettttaaaoooiinnsshhrrddllccuummwffggyyppbbvkjxqz" + string.ascii_uppercase
SMALLEST: Final = 6


def line(rng: Random, height: int, text: str | None = None, *, letters: int = 60) -> Ink:
    """A line of text.

    Args:
        rng: Source of randomness for font and words.
        height: Approximate height of the line in pixels.
        text: The text (default: random letters and digits, in words).
        letters: Maximum length of the random text, in characters.
    """
    fonts = _font_files()
    font = _font(fonts[int(rng.integers(len(fonts)))], max(SMALLEST, round(0.8 * height)))
    return _drawn(text if text is not None else _words(rng, letters), font)


def _words(rng: Random, letters: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) < letters:
        characters = string.digits if rng.random() < 0.2 else LETTERS
        size = int(rng.integers(1, 11))
        words.append("".join(characters[i] for i in rng.integers(len(characters), size=size)))
    return " ".join(words)[:letters]


def _drawn(text: str, font: ImageFont.FreeTypeFont) -> Ink:
    mask = font.getmask(text)
    width, height = mask.size
    if not width or not height:
        # The text is all spaces.
        return np.zeros((1, 1), dtype=np.uint8)
    return np.array(mask, dtype=np.uint8).reshape(height, width)


@cache
def _font_files() -> tuple[Path, ...]:
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return tuple(sorted(path for pattern in FONT_PATTERNS for path in folder.glob(pattern)))


@lru_cache(maxsize=512)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
