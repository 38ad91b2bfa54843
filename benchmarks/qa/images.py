"""Image files for the trials: small ones of every accepted format, and damage to them."""

import io
import random
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

# Values that programs take for a size, an offset or a count.
TELLING: Final = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x8000, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000)
MAX_DAMAGES: Final = 4
HEAD_BYTES: Final = 64
FORMS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("JPEG", "RGB", {"progressive": True}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "P", {}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGBA", {"compression": "tiff_deflate"}),
    ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    ("AVIF", "RGB", {"speed": 10}),
)


@cache
def originals() -> tuple[bytes, ...]:
    """A small image file of each form."""
    return tuple(_file(*form) for form in FORMS)


def _file(image_format: str, mode: str, options: dict[str, Any]) -> bytes:
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    image = coarse.resize((96, 64), Image.Resampling.BICUBIC)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def damaged(rng: random.Random) -> bytes:
    """One of the files with a few random damages, or now and then with none."""
    content = bytearray(rng.choice(originals()))
    for _ in range(rng.randint(0, MAX_DAMAGES)):
        content = rng.choice(DAMAGES)(content, rng)
    return bytes(content)


def _with_other_bytes(content: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 4, 20))):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    return content


def _with_a_telling_number(content: bytearray, rng: random.Random) -> bytearray:
    """A number in the head, where sizes are, or anywhere."""
    count = rng.choice((1, 2, 4))
    last = max(len(content) - count, 1)
    at = rng.randrange(min(HEAD_BYTES, last) if rng.random() < 0.7 else last)
    number = rng.choice(TELLING) % 256**count
    content[at : at + count] = number.to_bytes(count, rng.choice(("big", "little")))
    return content


def _cut_short(content: bytearray, rng: random.Random) -> bytearray:
    return content[: rng.randrange(len(content) + 1)]


def _with_a_part_moved(content: bytearray, rng: random.Random) -> bytearray:
    start, end, at = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    part = content[start:end]
    if rng.random() < 0.5:
        del content[start:end]
    content[at:at] = part
    return content


def _ended_as_another(content: bytearray, rng: random.Random) -> bytearray:
    other = rng.choice(originals())
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other)) :]


DAMAGES: Final = (
    _with_other_bytes,
    _with_a_telling_number,
    _with_a_telling_number,
    _cut_short,
    _with_a_part_moved,
    _ended_as_another,
)
