"""Varieties of files beside TIFF, written byte by byte; OpenCV says what is in them."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidImageError, ServiceError, UnsupportedTypeError
from service.imaging import kinds
from service.imaging.read import read_image
from support.pictures import encode, photo_like

HEIGHT, WIDTH = 48, 64
PHOTO = photo_like(WIDTH, HEIGHT)
WHITE = [255, 255, 255]
Pixels = NDArray[np.uint8]


def rgb_of(content: bytes) -> Pixels:
    return read_image(content, 10**6).pixels[:, :, ::-1]


def opencv_of(content: bytes) -> NDArray[np.generic]:
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    samples: NDArray[np.unsignedinteger], bits: int, color_type: int, extra: bytes = b""
) -> bytes:
    """A PNG of (h, w, channels) samples."""
    height, width, _ = samples.shape
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        parts = np.unpackbits(samples.astype(np.uint8)[..., None], axis=3)[..., 8 - bits :]
        rows = np.packbits(parts.reshape(height, -1), axis=1)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    parts_of_file = (chunk(b"IHDR", head), extra, chunk(b"IDAT", zlib.compress(body)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts_of_file) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "color_type"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)]
)
def test_the_transparent_colour_of_a_png_is_compared_in_all_its_bits(
    bits: int, color_type: int
) -> None:
    channels, most = {0: 1, 2: 3}[color_type], 2**bits - 1
    samples = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH, channels), np.uint16)
    samples[:9], samples[9] = most // 2, most // 2 ^ 1  # one bit from transparent
    key = struct.pack(f">{channels}H", *[most // 2] * channels)
    content = png(samples, bits, color_type, chunk(b"tRNS", key))
    expected = samples * 255 // most if bits < 16 else samples >> 8
    is_transparent = (samples == most // 2).all(axis=2)
    expected = np.where(is_transparent[:, :, None], 255, expected)
    found = rgb_of(content)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, found.shape))
    without = opencv_of(png(samples, bits, color_type)).reshape(samples.shape)[:, :, ::-1]
    np.testing.assert_array_equal(without, samples * (255 // most) if bits < 8 else samples)


@pytest.mark.parametrize(
    ("bits", "color_type"), [(8, 4), (16, 4), (8, 6), (16, 6), (16, 2), (16, 0)]
)
def test_every_png_of_channels_is_read_as_opencv_reads_it(bits: int, color_type: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    samples = np.random.default_rng(0).integers(0, 2**bits, (HEIGHT, WIDTH, channels), np.uint16)
    content = png(samples, bits, color_type)
    raw = opencv_of(content)
    parts = raw.reshape(HEIGHT, WIDTH, -1) / (2**bits - 1)
    alpha = parts[:, :, 3:] if color_type in (4, 6) else 1
    expected = (parts[:, :, :3] * alpha + 1 - alpha)[:, :, ::-1] * 255
    found = rgb_of(content)
    assert np.abs(found - np.broadcast_to(expected, found.shape)).max() <= 2


def test_an_interlaced_png_is_read() -> None:
    # Pillow writes none; this is a white PNG of 1 x 1 pixel, for which interlacing changes nothing.
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1))
    body = chunk(b"IDAT", zlib.compress(b"\0\xff"))
    content = b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")
    assert rgb_of(content).tolist() == [[WHITE]]


def gif(frame: tuple[int, int, int, int], *, local: bool, transparent: int | None = None) -> bytes:
    """A GIF of 20 x 10 pixels with one frame at (left, top, width, height), all of colour 1."""
    colors = bytes([200, 0, 0, 0, 100, 50])
    others = bytes([0, 0, 0, 9, 9, 9])
    left, top, width, height = frame
    # Codes of four bits: clear before each pixel, so that the table never grows.
    codes = [4, 1] * (width * height) + [5]
    bits = "".join(f"{code:03b}"[::-1] for code in codes)
    packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    blocks = b"".join(
        bytes([len(part)]) + part
        for part in (packed[at : at + 255] for at in range(0, len(packed), 255))
    )
    control = b"" if transparent is None else b"!\xf9\4" + bytes([1, 0, 0, transparent, 0])
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 20, 10, 0x80, 0, 0)
        + (others if local else colors)
        + control
        + b","
        + struct.pack("<HHHHB", left, top, width, height, 0x80 if local else 0)
        + (colors if local else b"")
        + b"\2"
        + blocks
        + b"\0;"
    )


@pytest.mark.parametrize("frame", [(0, 0, 20, 10), (3, 2, 5, 4), (15, 6, 5, 4), (0, 9, 20, 1)])
@pytest.mark.parametrize("local", [False, True], ids=["global colours", "local colours"])
@pytest.mark.parametrize("transparent", [None, 0, 1])
def test_a_gif_is_white_where_its_first_frame_draws_nothing(
    frame: tuple[int, int, int, int], local: bool, transparent: int | None
) -> None:
    left, top, width, height = frame
    expected = np.full((10, 20, 3), 255)
    if transparent != 1:
        expected[top : top + height, left : left + width] = (0, 100, 50)
    np.testing.assert_array_equal(
        rgb_of(gif(frame, local=local, transparent=transparent)), expected
    )


def bmp(
    pixels: bytes, height: int, bits: int, *, masks: tuple[int, ...] = (), size: int = 40
) -> bytes:
    """A BMP that is 4 pixels wide, of rows from the bottom (or from the top, if height < 0)."""
    compression = 3 if masks else 0
    head = struct.pack("<LllHHLLllLL", size, 4, height, 1, bits, compression, 0, 0, 0, 0, 0)
    head = (head + struct.pack(f"<{len(masks)}L", *masks)).ljust(size, b"\0")
    start = 14 + max(size, len(head))
    return b"BM" + struct.pack("<LHHL", start + len(pixels), 0, 0, start) + head + pixels


RED, GREEN = (255, 0, 0), (0, 255, 0)


@pytest.mark.parametrize(
    ("bits", "masks", "size", "red", "green"),
    [
        (24, (), 40, b"\0\0\xff", b"\0\xff\0"),
        (32, (), 40, b"\0\0\xff\0", b"\0\xff\0\x07"),
        (16, (), 40, b"\0\x7c", b"\xe0\3"),
        (16, (0xF800, 0x7E0, 0x1F), 40, b"\0\xf8", b"\xe0\7"),
        (16, (0x7C00, 0x3E0, 0x1F), 40, b"\0\x7c", b"\xe0\3"),
        (32, (0xFF0000, 0xFF00, 0xFF), 40, b"\0\0\xff\0", b"\0\xff\0\0"),
        (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 124, b"\xff\0\0\xff", b"\0\xff\0\xff"),
        # Alpha that is zero everywhere is none.
        (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124, b"\0\0\xff\0", b"\0\xff\0\0"),
    ],
)
@pytest.mark.parametrize("height", [2, -2], ids=["bottom up", "top down"])
def test_every_bmp_of_true_colour_is_read(
    bits: int, masks: tuple[int, ...], size: int, red: bytes, green: bytes, height: int
) -> None:
    content = bmp(red * 4 + green * 4, height, bits, masks=masks, size=size)
    first, last = (RED, GREEN) if height < 0 else (GREEN, RED)
    np.testing.assert_array_equal(rgb_of(content), [[first] * 4, [last] * 4])


def test_the_alpha_of_a_bmp_is_laid_on_white() -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    content = bmp(b"\0\0\xff\xff" * 4 + b"\0\xff\0\0" * 4, -2, 32, masks=masks, size=124)
    np.testing.assert_array_equal(rgb_of(content), [[RED] * 4, [WHITE] * 4])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_bmp_of_os2_is_read(bits: int) -> None:
    colors = bytes([0, 0, 255, 0, 255, 0]).ljust(3 * 2**bits, b"\0")
    row = {1: b"\x50", 4: b"\x01\x01", 8: b"\0\1\0\1"}[bits].ljust(4, b"\0")
    start = 26 + len(colors)
    head = struct.pack("<LHHHH", 12, 4, 1, 1, bits)
    content = b"BM" + struct.pack("<LHHL", start + 4, 0, 0, start) + head + colors + row
    np.testing.assert_array_equal(rgb_of(content), [[RED, GREEN] * 2])


@pytest.mark.parametrize(
    ("compression", "header", "name"),
    [
        (1, 40, "run-length"),
        (2, 40, "run-length"),
        (4, 40, "JPEG"),
        (5, 40, "PNG"),
        (3, 64, "OS/2"),
    ],
)
def test_a_compressed_bmp_is_refused_by_its_name(compression: int, header: int, name: str) -> None:
    content = bytearray(bmp(b"\0" * 64, 2, 8, size=header))
    content[30] = compression
    with pytest.raises(InvalidImageError, match=f"{name}.*8 bits is not supported; send"):
        rgb_of(bytes(content))


def jpeg(mode: str, **options: object) -> bytes:
    return saved(Image.fromarray(PHOTO).convert(mode), "JPEG", quality=95, **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_read(mode: str, progressive: bool, missing: int) -> None:
    content = jpeg(mode, progressive=progressive)
    np.testing.assert_array_equal(rgb_of(content[:-missing]), rgb_of(content))
    for more in (9, 60, len(content) // 3):
        with pytest.raises(InvalidImageError, match="cut short"):
            rgb_of(content[:-more])


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_of_a_jpeg_becomes_the_colour_it_prints(progressive: bool) -> None:
    content = jpeg("CMYK", progressive=progressive)
    assert np.abs(rgb_of(content).astype(int) - PHOTO).mean() < 4
    assert np.abs(opencv_of(content)[:, :, ::-1] - rgb_of(content).astype(int)).max() <= 3


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_nothing(image_format: str) -> None:
    """Browsers, libvips and OpenCV go by EXIF."""
    options: dict[str, object] = {"xmp": XMP}
    if image_format == "PNG":
        info = __import__("PIL.PngImagePlugin").PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": info}
    if image_format == "TIFF":
        options = {"tiffinfo": {700: XMP}}
    content = encode(PHOTO, image_format, **options)
    assert b"tiff:Orientation" in content
    assert rgb_of(content).shape == PHOTO.shape


@pytest.mark.parametrize(
    ("kind", "count", "is_turned"), [(3, 1, True), (1, 1, False), (4, 1, False), (3, 2, False)]
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_turns_an_image_where_browsers_turn_it(
    kind: int, count: int, is_turned: bool, order: str
) -> None:
    value = {1: "B3x", 3: "H2x", 4: "L"}[kind]
    entry = struct.pack(f"{order}HHL{value}", 0x0112, kind, count, 6)
    head = struct.pack(f"{order}2sHLH", b"II" if order == "<" else b"MM", 42, 8, 1)
    content = encode(PHOTO, "JPEG", exif=b"Exif\0\0" + head + entry + b"\0" * 4)
    turned = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape
    assert rgb_of(content).shape == ((WIDTH, HEIGHT, 3) if is_turned else (HEIGHT, WIDTH, 3))
    assert turned == (WIDTH, HEIGHT, 3) or not is_turned


@pytest.mark.parametrize(
    ("code", "bits", "channels", "name"),
    [
        (0xC1, 12, 3, "JPEG of 12 bits"),
        (0xC0, 8, 2, "2 channels"),
        (0xC5, 8, 3, "hierarchical JPEG"),
        (0xF7, 8, 3, "JPEG-LS"),
    ],
)
def test_an_unusual_jpeg_is_refused_by_its_name(
    code: int, bits: int, channels: int, name: str
) -> None:
    content = bytearray(jpeg("RGB"))
    at = content.index(b"\xff\xc0")
    content[at + 1], content[at + 4], content[at + 9] = code, bits, channels
    with pytest.raises(InvalidImageError, match=f"{name}.*send an ordinary JPEG"):
        rgb_of(bytes(content))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("brand", [b"avif", b"avis", b"mif1", b"miaf", b"mif3", b"MA1B"])
def test_an_avif_of_any_brand_is_read(mode: str, brand: bytes) -> None:
    image = Image.fromarray(PHOTO)
    image.putalpha(Image.new("L", image.size, 128))
    image = image.convert(mode)
    content = saved(image, "AVIF", quality=98)
    branded = content[:8] + brand + content[12:]
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    assert np.abs(rgb_of(branded).astype(int) - expected).mean() < 3


def box(major: bytes, *others: bytes) -> bytes:
    brands = b"".join(others)
    return struct.pack(">L", 16 + len(brands)) + b"ftyp" + major + b"\0" * 4 + brands + b"\0" * 64


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (box(b"heic", b"mif1", b"heic"), "HEIC"),
        (box(b"mif1", b"mif1", b"heic", b"miaf"), "HEIC"),
        (box(b"msf1", b"hevc"), "HEIC"),
        (box(b"mif1", b"jpeg"), "HEIF"),
        (box(b"crx ", b"crx "), "raw file"),
        (box(b"isom", b"mp42"), "a video"),
        (box(b"qt  "), "a video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a12345", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"PK\3\4....", "ZIP"),
        (b" \n<svg xmlns='x'>", "SVG"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"data:image/jpeg;base64,/9j/", "base64"),
        (b"iVBORw0KGgoAAAANSUhEUg==", "base64"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_name(
    content: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "reads_heic", lambda: False)
    with pytest.raises(UnsupportedTypeError, match=f"this is .*{name}.*accepted type.*; send JPEG"):
        rgb_of(content)


LIBRARY_WORDS = (
    *("decoder", "buffer", "NoneType", "unpack", "struct", "index", "object", "Error", "errno"),
    *(
        "truncated",
        "bytes not processed",
        "broken",
        "unrecognized",
        "chunk",
        "segment",
        "simplejpeg",
    ),
)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it skips
def test_no_message_has_words_of_a_library(capfd: pytest.CaptureFixture[str]) -> None:
    """Nor is anything written to stderr, where it would break a log of JSON lines."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(PHOTO)
    files = [encode(PHOTO, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")]
    files += [jpeg("CMYK"), jpeg("RGB", progressive=True), saved(image.convert("P"), "PNG")]
    files += [
        saved(image, "TIFF", compression=compression)
        for compression in (None, "tiff_lzw", "jpeg", "tiff_adobe_deflate")
    ]
    messages: set[str] = set()
    for content in files:
        for trial in range(40):
            damaged = bytearray(content[: rng.integers(len(content)) if trial % 2 else None])
            for _ in range(min(4, len(damaged))):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
            try:
                rgb_of(bytes(damaged) or b"?")
            except ServiceError as error:
                messages.add(error.detail)
    assert len(messages) > 8
    assert not [text for text in messages for word in LIBRARY_WORDS if word in text]
    assert capfd.readouterr().err == ""
