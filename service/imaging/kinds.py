"""Tells by its first bytes what a file is."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal, get_args

from service.errors import UnsupportedTypeError

Kind = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"]

# The first bytes by which a file claims to be of an accepted kind; + marks a BigTIFF.
SIGNATURES: Final[Mapping[Kind, bytes]] = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb".{8}WEBP",
    "GIF": rb"GIF8",
    "BMP": rb"BM",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
}
# The group that matches is named by the kind.
SIGNATURE: Final = re.compile(
    b"|".join(b"(?P<%b>%b)" % (kind.encode(), start) for kind, start in SIGNATURES.items()),
    re.DOTALL,
)
# Files that people send by mistake, so that the refusal can call them by their name.
OTHERS: Final = (
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"IIU\0", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIRS", "a camera's raw file"),
    (0, b"MMOR", "a camera's raw file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"qoif", "QOI"),
    (0, b"%PDF", "PDF"),
    (8, b"AVI ", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"data:", "base64 text (send the bytes themselves, or base64 in JSON)"),
    (0, b"/9j/", "base64 text (send the bytes themselves, or base64 in JSON)"),
    (0, b"iVBORw0KGgo", "base64 text (send the bytes themselves, or base64 in JSON)"),
)
# Starts of text files, in lower case.
TEXTS: Final = (
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"http://", "a URL, which the server does not fetch"),
    (b"https://", "a URL, which the server does not fetch"),
)
# ISO base media files name their kind by four-letter brands, of which one file has several.
AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
HEIC_BRANDS: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
)
# Containers of images in any coding: AVIF, HEIC and others.
CONTAINER_BRANDS: Final = frozenset(
    {b"mif1", b"mif2", b"mif3", b"msf1", b"miaf", b"MiHB", b"MiHE", b"MA1A", b"MA1B"}
)
MAX_BRANDS: Final = 64
# Longer than "https://" and "file://", and what is beside them.
MAX_SCHEME: Final = 16


@cache
def reads_heic() -> bool:
    """Whether the extra `heic` is installed."""
    return find_spec("pi_heif") is not None


def accepted_kinds() -> Sequence[str]:
    """The kinds that this installation reads."""
    return [kind for kind in get_args(Kind) if kind != "HEIC" or reads_heic()]


def has_image_signature(content: bytes) -> bool:
    """Whether the first bytes claim to be an image, even one that is not accepted."""
    return SIGNATURE.match(content) is not None or bool(brands_of(content))


def is_url(text: bytes) -> bool:
    """Whether the text is the address of an image, in the place of the image."""
    return b"://" in text[:MAX_SCHEME]


def kind_by_brands(content: bytes) -> Kind:
    """The kind of an image file that has no `SIGNATURE`.

    Raises:
        UnsupportedTypeError: It is of no accepted kind; the error names what it is, if known.
    """
    brands = brands_of(content)
    if AVIF_BRANDS & set(brands):
        return "AVIF"
    if HEIC_BRANDS & set(brands) and reads_heic():
        return "HEIC"
    name = _media_name(brands) if brands else _other_name(content)
    raise (
        refusal(name)
        if name
        else UnsupportedTypeError(
            f"this is not an image of an accepted type ({', '.join(accepted_kinds())})"
        )
    )


def refusal(name: str) -> UnsupportedTypeError:
    """The error for a file of another kind.

    Args:
        name: The name of its kind.
    """
    accepted = ", ".join(accepted_kinds())
    return UnsupportedTypeError(
        f"this is {name}, not an image of an accepted type ({accepted}); send JPEG"
    )


def brands_of(content: bytes) -> tuple[bytes, ...]:
    """The brands of an ISO base media file, the major one first; none if it is another file."""
    if content[4:8] != b"ftyp":
        return ()
    end = min(int.from_bytes(content[:4], "big"), 16 + 4 * MAX_BRANDS)
    compatible = (content[at : at + 4] for at in range(16, min(end, len(content)), 4))
    return (content[8:12], *compatible)


def _media_name(brands: tuple[bytes, ...]) -> str:
    if HEIC_BRANDS & set(brands):
        return "HEIC"
    if brands[0] == b"crx ":
        return "a camera's raw file"
    return "HEIF, but not AVIF" if CONTAINER_BRANDS & set(brands) else "a video"


def _other_name(content: bytes) -> str | None:
    start = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = [name for at, magic, name in OTHERS if content.startswith(magic, at)]
    return next(iter(found + [name for text, name in TEXTS if start.startswith(text)]), None)
