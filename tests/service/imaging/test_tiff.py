"""TIFFs of every layout, written by tifffile and Pillow; tifffile says what is in them."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidImageError, UnsupportedTypeError
from service.imaging.read import read_image
from service.imaging.tiff.directory import SHORT, Order, Tag, read_directory, short, with_directory
from support.pictures import photo_like

HEIGHT, WIDTH = 53, 70
PHOTO = np.dstack([photo_like(WIDTH, HEIGHT), photo_like(WIDTH, HEIGHT, seed=1)])
CHANNELS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}
EXTRAS = (None, "unspecified", "assocalpha", "unassalpha")
# Byte order, whether BigTIFF, size of tiles, compression and predictor.
FORMS = (
    ("<", False, None, None, None),
    (">", False, None, "zlib", 2),
    ("<", True, (32, 48), "zlib", 2),
    (">", True, None, None, None),
    (">", False, (32, 48), None, None),
    ("<", False, None, "lzma", None),
)
Values = NDArray[np.generic]


def tiff(array: Values, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def rgb_of(content: bytes) -> NDArray[np.uint8]:
    return read_image(content, 10**6).pixels[:, :, ::-1]


def samples(kind: str, extra: str | None, dtype: type[np.unsignedinteger]) -> Values:
    """(h, w, channels) of smooth colours, and of alpha from 0 on the left to opaque."""
    most = int(np.iinfo(dtype).max)
    colors = PHOTO[:, :, : CHANNELS[kind]].astype(np.uint32) * (most // 255)
    colors += np.uint32(most // 300)
    colors = np.minimum(colors, most)
    if extra is None:
        return colors.astype(dtype)
    alpha = np.tile(np.linspace(0, most, WIDTH).astype(np.uint32), (HEIGHT, 1))[:, :, None]
    if extra == "assocalpha":
        colors = (colors.astype(np.uint64) * alpha // most).astype(np.uint32)
    return np.dstack([colors, alpha]).astype(dtype)


def as_seen(values: Values, kind: str, extra: str | None) -> NDArray[np.floating]:
    """The look of samples on white, from the definitions in TIFF 6.0."""
    parts = np.asarray(values, np.float64) / np.iinfo(values.dtype).max
    colors, alpha = parts[:, :, : CHANNELS[kind]], parts[:, :, -1:]
    if kind == "miniswhite":
        colors = 1 - colors
    if kind == "separated":
        colors = (1 - colors[:, :, :3]) * (1 - colors[:, :, 3:])
    if extra == "assocalpha":
        colors = colors + 1 - alpha
    elif extra == "unassalpha":
        colors = colors * alpha + 1 - alpha
    return np.broadcast_to(colors * 255, (*values.shape[:2], 3))


def is_read(kind: str, extra: str | None, dtype: type[np.unsignedinteger]) -> bool:
    if kind == "separated":
        return extra is None or (extra == "unspecified" and dtype == np.uint8)
    return extra is None or kind != "miniswhite"


LAYOUTS = [
    pytest.param(kind, extra, dtype, id=f"{kind} {extra} {dtype.__name__}")
    for kind, extra, dtype in itertools.product(CHANNELS, EXTRAS, (np.uint8, np.uint16))
    if is_read(kind, extra, dtype)
]


@pytest.mark.parametrize(("kind", "extra", "dtype"), LAYOUTS)
def test_every_layout_gives_the_pixels_that_a_person_sees(
    kind: str, extra: str | None, dtype: type[np.unsignedinteger]
) -> None:
    values = samples(kind, extra, dtype)
    channels = values.shape[2]
    expected = as_seen(values, kind, extra)
    options = {"photometric": kind, "extrasamples": None if extra is None else [extra]}
    planes = ("contig", "separate") if channels > 1 else (None,)
    for planar, (order, big, tile, compression, predictor) in itertools.product(planes, FORMS):
        stored = np.moveaxis(values, 2, 0) if planar == "separate" else values.squeeze()
        content = tiff(
            np.ascontiguousarray(stored),
            planarconfig=planar,
            byteorder=order,
            bigtiff=big,
            tile=tile,
            compression=compression,
            predictor=predictor,
            rowsperstrip=None if tile else 17,
            **options,
        )
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(content)), stored)
        what = (planar, order, big, tile, compression, predictor)
        if dtype == np.uint16 and channels == 2 and planar == "contig":
            with pytest.raises(InvalidImageError, match="16-bit grey of 2 channels"):
                rgb_of(content)
            continue
        assert np.abs(rgb_of(content) - expected).max() <= 3, (
            what
        )  # upper bytes, and alpha in 8 bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scale", [1, 257], ids=["8-bit colours", "16-bit colours"])
def test_palettes_are_looked_up(bits: int, order: Order, scale: int) -> None:
    rng = np.random.default_rng(bits)
    indices = rng.integers(0, 2**bits, (HEIGHT, WIDTH), np.uint8)
    colors = rng.integers(0, 256, (3, 2**bits)).astype(np.uint16)
    content = of_few_bits(indices, bits, order)
    content = with_tag(content, 262, short(order, 3))
    content = with_tag(content, 320, short(order, *(colors * scale).ravel().tolist()))
    np.testing.assert_array_equal(rgb_of(content), colors.T[indices])


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("reversed_bits", [False, True])
def test_grey_of_few_bits_is_spread_over_all_values(
    bits: int, kind: str, reversed_bits: bool
) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (HEIGHT, WIDTH), np.uint8)
    content = with_tag(of_few_bits(values, bits), 262, short("<", int(kind == "minisblack")))
    if reversed_bits:
        content = with_fill_order_2(content)
    grey = values.astype(int) * 255 // (2**bits - 1)
    grey = 255 - grey if kind == "miniswhite" else grey
    np.testing.assert_array_equal(rgb_of(content)[:, :, 1], grey)


def of_few_bits(values: NDArray[np.uint8], bits: int, order: Order = "<") -> bytes:
    """A grey TIFF whose samples are packed into bytes, each row from a byte of its own on."""
    parts = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - bits :]
    rows = np.packbits(parts.reshape(len(values), -1), axis=1)
    content = tiff(rows, photometric="minisblack", byteorder=order)
    content = with_tag(content, 256, short(order, values.shape[1]))
    return with_tag(content, 258, short(order, bits))


def with_fill_order_2(content: bytes) -> bytes:
    """The same file with the bits of each byte stored in reverse, as some faxes are."""
    reverse = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    changed = bytearray(content)
    page = tifffile.TiffFile(io.BytesIO(content)).pages[0]
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        changed[start : start + count] = content[start : start + count].translate(reverse)
    return with_tag(bytes(changed), 266, Tag(SHORT, b"\2\0"))


def with_tag(content: bytes, number: int, tag: Tag | None) -> bytes:
    """The file with a tag changed, or without it."""
    directory = read_directory(content)
    tags = {key: value for key, value in directory.tags.items() if key != number}
    if tag is not None:
        tags[number] = tag
    return with_directory(content, type(directory)(directory.order, tags))


@pytest.mark.parametrize(
    ("mode", "compression", "tolerance"),
    [
        ("RGB", "tiff_lzw", 0),
        ("RGB", "packbits", 0),
        ("RGB", "zstd", 0),
        ("RGB", "jpeg", 12),
        ("L", "jpeg", 6),
        ("L", "tiff_lzw", 0),
        ("1", "group3", 0),
        ("1", "group4", 0),
        ("1", "tiff_ccitt", 0),
        ("P", "tiff_lzw", 0),
    ],
)
def test_compressions_are_undone(mode: str, compression: str, tolerance: int) -> None:
    image = Image.fromarray(PHOTO[:, :, :3]).convert(mode)
    options = {"quality": 98} if compression == "jpeg" else {}
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression, **options)
    assert tifffile.TiffFile(io.BytesIO(buffer.getvalue())).pages[0].compression != 1
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(rgb_of(buffer.getvalue()) - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [1, 3, 4], ids=["BYTE", "SHORT", "LONG"])
@pytest.mark.parametrize("big", [False, True])
def test_an_orientation_of_any_type_of_number_turns_the_image(
    orientation: int, kind: int, big: bool
) -> None:
    for order, name in ("<", "little"), (">", "big"):
        size = {1: 1, 3: 2, 4: 4}[kind]
        tag = (274, kind, 1, orientation, True)
        content = tiff(
            PHOTO[:, :, :3], photometric="rgb", byteorder=order, bigtiff=big, extratags=[tag]
        )
        stored = read_directory(content).tags[274]
        assert (stored.kind, bytes(stored.data)) == (kind, orientation.to_bytes(size, name))
        photo = read_image(content, 10**6)
        expected = turned(PHOTO[:, :, :3], orientation)
        assert (photo.height, photo.width) == expected.shape[:2]
        np.testing.assert_array_equal(photo.pixels[:, :, ::-1], expected)


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright pixels, by the table in TIFF 6.0: where row 0 and column 0 of the file are."""
    ways = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(pixels),
    }
    return ways[orientation]


def test_what_a_file_omits_has_the_defaults_of_libtiff() -> None:
    rgb, grey = PHOTO[:, :, :3], PHOTO[:, :, 0]
    np.testing.assert_array_equal(rgb_of(with_tag(tiff(rgb, photometric="rgb"), 262, None)), rgb)
    content = with_tag(tiff(grey, photometric="minisblack"), 262, None)
    np.testing.assert_array_equal(rgb_of(content)[:, :, 0], grey)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.int8, "8-bit signed"),
        (np.int16, "16-bit signed"),
        (np.int32, "32-bit signed"),
        (np.uint32, "32-bit"),
        (np.float16, "16-bit floating-point"),
        (np.float32, "32-bit floating-point"),
        (np.float64, "64-bit floating-point"),
        (np.complex64, "64-bit complex"),
    ],
)
def test_other_numbers_are_refused_by_their_name(dtype: type[np.generic], name: str) -> None:
    for channels, kind, meaning in (1, "minisblack", "grey"), (3, "rgb", "RGB"):
        content = tiff(PHOTO[:, :, :channels].squeeze().astype(dtype), photometric=kind)
        with pytest.raises(InvalidImageError) as caught:
            rgb_of(content)
        assert f"this TIFF is {name} {meaning}" in str(caught.value)
        assert "send a PNG" in str(caught.value)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        ({262: 8}, r"CIE L\*a\*b\*"),
        ({262: 32803}, "camera raw"),
        ({259: 34712}, "in JPEG 2000"),
        ({259: 6}, "in old-style JPEG"),
        ({259: 777}, "in compression 777"),
        ({262: 9999}, "photometric 9999"),
        ({262: 5, 332: 2, 277: 4}, "inks other than CMYK"),
    ],
)
def test_other_layouts_are_refused_by_their_name(tags: dict[int, int], name: str) -> None:
    content = tiff(PHOTO[:, :, :3], photometric="rgb")
    for number, value in tags.items():
        bits = Tag(SHORT, b"\10\0" * 4) if number == 277 else None
        content = with_tag(content, number, Tag(SHORT, value.to_bytes(2, "little")))
        content = with_tag(content, 258, bits) if bits else content
    with pytest.raises(InvalidImageError, match=name):
        rgb_of(content)


def test_a_camera_raw_file_is_not_taken_for_its_thumbnail() -> None:
    content = tiff(PHOTO[:, :, :3], photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(rgb_of(content), PHOTO[:, :, :3])
    for number in (330, 50706):
        with pytest.raises(UnsupportedTypeError, match=r"raw file.*send JPEG"):
            rgb_of(with_tag(content, number, Tag(4, b"\1\0\0\0")))


def test_tags_that_share_their_bytes_take_no_memory_of_their_own() -> None:
    """4000 tags of a megabyte each are the same megabyte."""
    blob = b"\0" * 2**20
    entries = b"".join(
        np.array([number, 1], "<u2").tobytes() + np.array([2**20, 8], "<u4").tobytes()
        for number in range(1000, 5000)
    )
    start = 8 + len(blob)
    content = b"II*\0" + start.to_bytes(4, "little") + blob + (4000).to_bytes(2, "little") + entries
    tags = read_directory(content).tags
    assert len(tags) == 4000
    assert all(isinstance(tag.data, memoryview) for tag in tags.values())
