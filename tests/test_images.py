import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pictures import encode, photo_like, plain
from service.errors import (
    InvalidImageError,
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.images import read_image

MANY = 10**7
PHOTO = photo_like(60, 40)


def bgr(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rgb[:, :, ::-1]


def difference(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    assert pixels.shape == expected.shape
    return int(np.abs(pixels.astype(int) - expected.astype(int)).max())


@pytest.mark.parametrize(
    ("image_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 98, "subsampling": 0}, 8),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("AVIF", {"quality": 98}, 12),
    ],
)
def test_every_format_gives_its_pixels(
    image_format: str, options: dict[str, object], tolerance: int
) -> None:
    pixels = read_image(encode(PHOTO, image_format, **options), MANY)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, bgr(PHOTO)) <= tolerance


def test_of_a_gif_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert (read_image(buffer.getvalue(), MANY) == [0, 0, 255]).all()


def from_pillow(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_grey_becomes_equal_channels(image_format: str) -> None:
    grey = Image.fromarray(PHOTO).convert("L")
    pixels = read_image(from_pillow(grey, image_format), MANY)
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    assert np.abs(pixels[:, :, 0].astype(int) - np.asarray(grey)).mean() < 3


def test_one_bit_black_and_white_becomes_0_and_255() -> None:
    pixels = read_image(from_pillow(Image.fromarray(PHOTO).convert("1")), MANY)
    assert set(np.unique(pixels)) == {0, 255}


def test_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (read_image(from_pillow(image), MANY) == [30, 20, 10]).all()


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    pixels = read_image(from_pillow(image), MANY)
    assert difference(pixels, np.uint8([[[255, 255, 255], [127, 127, 255], [0, 0, 255]]])) <= 1


def test_transparent_palette_entry_lies_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30])
    assert (read_image(from_pillow(image, transparency=0), MANY) == 255).all()


def test_cmyk_becomes_the_colour_it_prints() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for image_format in ("JPEG", "TIFF"):
        pixels = read_image(from_pillow(cyan, image_format), MANY)
        assert difference(pixels, np.full((16, 16, 3), [255, 255, 0], np.uint8)) <= 3


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(image_format: str) -> None:
    grey = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)
    pixels = read_image(from_pillow(Image.fromarray(grey), image_format), MANY)
    assert pixels[0, :, 0].tolist() == [0, 0x12, 0xFF]


def test_32_bit_pixels_are_refused_in_words() -> None:
    image = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    with pytest.raises(InvalidImageError, match="8 or 16 bits"):
        read_image(from_pillow(image, "TIFF"), MANY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_image_upright(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if image_format == "WEBP" else {}
    content = encode(PHOTO, image_format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert difference(read_image(content, MANY), bgr(np.asarray(upright))) <= 1


def test_pixel_limit_is_checked_before_decoding() -> None:
    """The body is cut off behind the header, so that any decoding would fail otherwise."""
    header = plain(width=300, height=200)[:60]
    with pytest.raises(TooLargeError, match="300 x 200"):
        read_image(header, 300 * 200 - 1)


def test_image_of_exactly_the_limit_is_read() -> None:
    assert read_image(plain(width=30, height=20), 600).shape == (20, 30, 3)


def test_bomb_that_pillow_refuses_is_too_large() -> None:
    bomb = bytearray(plain())
    bomb[16:24] = (60_000).to_bytes(4) * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    with pytest.raises(TooLargeError):
        read_image(bytes(bomb), 89_000_000)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_image_cut_in_half_is_invalid(image_format: str) -> None:
    content = encode(np.tile(PHOTO, (4, 4, 1)), image_format)
    with pytest.raises(InvalidImageError):
        read_image(content[: len(content) // 2], MANY)


@pytest.mark.parametrize("content", [b"hello", b"%PDF-1.7 ...", b"\0" * 100])
def test_what_is_no_image_is_unsupported(content: bytes) -> None:
    with pytest.raises(UnsupportedTypeError, match="accepted type"):
        read_image(content, MANY)


def test_damaged_header_is_invalid_rather_than_unsupported() -> None:
    with pytest.raises(InvalidImageError):
        read_image(plain(image_format="JPEG")[:12], MANY)


def test_jpeg_with_harmless_junk_is_still_read() -> None:
    content = encode(PHOTO, "JPEG", quality=95)
    junk = content[:2] + b"\xff\xff" + content[2:]
    assert difference(read_image(junk, MANY), read_image(content, MANY)) <= 1


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it skips
def test_random_damage_never_raises_anything_else() -> None:
    rng = np.random.default_rng(0)
    formats = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
    contents = [encode(PHOTO, image_format) for image_format in formats]
    for content in contents:
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(5):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
            try:
                pixels = read_image(bytes(damaged), MANY)
            except (InvalidImageError, TooLargeError, UnsupportedTypeError):
                continue
            assert pixels.ndim == 3


def test_an_empty_file_is_a_malformed_request() -> None:
    with pytest.raises(MalformedRequestError, match="empty"):
        read_image(b"", MANY)


def test_whatever_a_decoder_raises_is_an_invalid_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("segment 3 is missing")

    monkeypatch.setattr("service.images._decode", broken)
    with pytest.raises(InvalidImageError, match="segment 3"):
        read_image(plain(), MANY)


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan is a pass over all the pixels: two megabytes of them took minutes."""
    content = encode(photo_like(640, 480), "JPEG", progressive=True)
    read_image(content, MANY)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImageError, match="scans"):
        read_image(content[:-2] + last_scan * 101 + content[-2:], MANY)


def test_a_run_length_encoded_bmp_is_refused() -> None:
    content = bytearray(from_pillow(Image.new("P", (8, 8)), "BMP"))
    content[30] = 1
    with pytest.raises(InvalidImageError, match="run-length"):
        read_image(bytes(content), MANY)


def tiff_with_tile(side: int) -> bytes:
    """A 16 x 16 TIFF in one tile of another side."""
    tags = [
        *((256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)),
        *((322, 4, side), (323, 4, side), (324, 4, 200), (325, 4, 256)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    return head.ljust(200, b"\0") + b"\0" * 256


def test_a_tile_larger_than_its_tiff_counts_as_pixels() -> None:
    with pytest.raises(TooLargeError, match="20000 x 20000"):
        read_image(tiff_with_tile(20_000), MANY)


def test_large_images_are_decoded_one_at_a_time() -> None:
    lock = threading.Lock()
    large, small = plain(width=4001, height=3000), plain()
    with lock, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read_image, large, 10**8, lock)
        assert read_image(small, MANY, lock).shape == (64, 64, 3)
        # Without the lock it would be done in a fraction of this.
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1.5)
        lock.release()
        assert waiting.result(timeout=30).shape == (3000, 4001, 3)
        assert lock.acquire(timeout=10)
