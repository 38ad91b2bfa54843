"""The directory of a TIFF: its tags, read from any form of the file, and written in one form.

EXIF is such a directory too. Tag numbers and types are those of the TIFF 6.0 and BigTIFF
specifications.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["<", ">"]

ORIENTATION: Final = 274
# numpy's codes of the types of tags that hold whole numbers.
WHOLE_NUMBERS: Final = {
    **dict(zip((1, 3, 4, 13, 16, 18), ("u1", "u2", "u4", "u4", "u8", "u8"), strict=True)),
    **dict(zip((6, 8, 9, 17), ("i1", "i2", "i4", "i8"), strict=True)),
}
SHORT: Final = 3
LONG: Final = 4
# Bytes of a value of each type; a RATIONAL is two numbers.
SIZES: Final = {2: 1, 5: 8, 7: 1, 10: 8, 11: 4, 12: 8} | {
    kind: int(code[1]) for kind, code in WHOLE_NUMBERS.items()
}
EXIF_PREFIX: Final = b"Exif\0\0"
MAX_CLASSIC_SIZE: Final = 2**32
# Real directories have a few dozen tags.
MAX_ENTRIES: Final = 4096


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag of a directory.

    Attributes:
        kind: The number of its values' type.
        data: The values, in the byte order of the file.
    """

    kind: int
    data: bytes | memoryview

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self.data) // SIZES[self.kind]

    def numbers(self, order: Order) -> NDArray[np.integer]:
        """The values, if they are whole numbers; else none."""
        code = WHOLE_NUMBERS.get(self.kind)
        return np.frombuffer(self.data if code else b"", f"{order}{code or 'u1'}")

    def __getitem__(self, values: slice) -> "Tag":
        """Some of the values."""
        size = SIZES[self.kind]
        return Tag(self.kind, self.data[values.start * size : values.stop * size])


@dataclass(frozen=True, slots=True)
class Directory:
    """The first directory of a file.

    Attributes:
        order: The file's byte order, as numpy and struct write it.
        tags: Its tags by number, damaged ones left out.
    """

    order: Order
    tags: Mapping[int, Tag]

    def numbers(self, tag: int) -> NDArray[np.integer]:
        """All values of a tag; none if it is missing, or holds no whole numbers."""
        found = self.tags.get(tag)
        return np.zeros(0, np.uint8) if found is None else found.numbers(self.order)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        values = self.numbers(tag)
        return int(values[0]) if len(values) else default


def short(order: Order, *values: int) -> Tag:
    """A tag with values of 16 bits."""
    return Tag(SHORT, struct.pack(f"{order}{len(values)}H", *values))


def read_directory(content: bytes) -> Directory:
    """Read the first directory of a TIFF or BigTIFF of either byte order.

    Raises:
        ValueError: The bytes do not begin as a TIFF does.
        struct.error: They end before the directory does.
    """
    order: Order = ">" if content[:2] == b"MM" else "<"
    (magic,) = struct.unpack_from(f"{order}H", content, 2)
    if magic not in (42, 43):
        raise ValueError("no TIFF")
    is_big = magic == 43
    (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", content, 8 if is_big else 4)
    tags: dict[int, Tag] = {}
    for number, tag in _entries(content, at, order, is_big=is_big):
        tags.setdefault(number, tag)
    return Directory(order, tags)


def _entries(content: bytes, at: int, order: Order, *, is_big: bool) -> Iterator[tuple[int, Tag]]:
    """The entries of a directory, less those of unknown types or with values outside the file."""
    entry = struct.Struct(f"{order}{'HHQ8s' if is_big else 'HHL4s'}")
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", content, at)
    at += 8 if is_big else 2
    # Values are looked at where they are: many tags may name the same megabytes.
    view = memoryview(content)
    for start in range(
        at, min(at + min(count, MAX_ENTRIES) * entry.size, len(content)), entry.size
    ):
        number, kind, values, field = entry.unpack_from(content, start)
        size = values * SIZES.get(kind, 0)
        data: bytes | memoryview = field[:size]
        if size > len(field):
            (offset,) = struct.unpack(f"{order}{'Q' if is_big else 'L'}", field)
            data = view[offset : offset + size]
        if size and len(data) == size:
            yield number, Tag(kind, data)


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF, or 1 (upright) where browsers find none: it has to be one SHORT."""
    if not exif:
        return 1
    try:
        found = read_directory(exif.removeprefix(EXIF_PREFIX))
    except (ValueError, struct.error):
        return 1
    tag = found.tags.get(ORIENTATION)
    is_valid = tag is not None and tag.kind == SHORT and tag.count == 1
    return found.number(ORIENTATION, 1) if is_valid else 1


def with_directory(content: bytes, directory: Directory) -> bytes:
    """The file as a classic TIFF that has only this directory, which is put at its end.

    Offsets of strips and tiles keep their meaning, for the rest of the file stays where it is.

    Args:
        content: A TIFF or BigTIFF.
        directory: Its tags, in its byte order.

    Raises:
        ValueError: The file is too large for a classic TIFF.
    """
    order, tags = directory.order, sorted(directory.tags.items())
    start = len(content) + len(content) % 2
    values_at = start + 2 + 12 * len(tags) + 4
    entries, values = bytearray(), bytearray()
    for number, tag in tags:
        classic = _classic(tag, order)
        data = bytes(classic.data)
        if len(data) > 4:
            place = struct.pack(f"{order}L", values_at + len(values))
            values += data + b"\0" * (len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHL4s", number, classic.kind, classic.count, place)
    if values_at + len(values) >= MAX_CLASSIC_SIZE:
        raise ValueError("too large for a classic TIFF")
    head = struct.pack(f"{order}2sHL", b"MM" if order == ">" else b"II", 42, start)
    count = struct.pack(f"{order}H", len(tags))
    pad = b"\0" * (len(content) % 2)
    return b"".join((head, memoryview(content)[8:], pad, count, entries, b"\0" * 4, values))


def _classic(tag: Tag, order: Order) -> Tag:
    """The tag without the types that only BigTIFF has."""
    if SIZES[tag.kind] == 8 and tag.kind in WHOLE_NUMBERS:
        return Tag(LONG, tag.numbers(order).astype(f"{order}u4").tobytes())
    return tag
