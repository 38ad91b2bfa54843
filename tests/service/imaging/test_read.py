import io
import struct
import time
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.core.letterbox import letterbox
from service.errors import (
    InvalidImageError,
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.imaging.memory import ImageMemory, MemoryShortError
from service.imaging.read import read_image
from support.pictures import encode, photo_like, plain

MANY = 10**7
PHOTO = photo_like(60, 40)


def pixels_of(content: bytes, max_pixels: int = MANY) -> NDArray[np.uint8]:
    return read_image(content, max_pixels).pixels


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
    pixels = pixels_of(encode(PHOTO, image_format, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, bgr(PHOTO)) <= tolerance


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert (pixels_of(buffer.getvalue()) == [0, 0, 255]).all()


def from_pillow(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_grey_becomes_equal_channels(image_format: str) -> None:
    grey = Image.fromarray(PHOTO).convert("L")
    pixels = pixels_of(from_pillow(grey, image_format))
    assert (pixels[:, :, 0] == pixels[:, :, 2]).all()
    assert np.abs(pixels[:, :, 0].astype(int) - np.asarray(grey)).mean() < 3


def test_one_bit_black_and_white_becomes_0_and_255() -> None:
    pixels = pixels_of(from_pillow(Image.fromarray(PHOTO).convert("1")))
    assert set(np.unique(pixels)) == {0, 255}


def test_palette_is_looked_up() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert (pixels_of(from_pillow(image)) == [30, 20, 10]).all()


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (255, 0, 0, alpha))
    pixels = pixels_of(from_pillow(image))
    assert difference(pixels, np.uint8([[[255, 255, 255], [127, 127, 255], [0, 0, 255]]])) <= 1


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30])
    assert (pixels_of(from_pillow(image, transparency=0)) == 255).all()


def test_cmyk_becomes_the_colour_it_prints() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for image_format in ("JPEG", "TIFF"):
        pixels = pixels_of(from_pillow(cyan, image_format))
        assert difference(pixels, np.full((16, 16, 3), [255, 255, 0], np.uint8)) <= 3


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(image_format: str) -> None:
    grey = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16)
    pixels = pixels_of(from_pillow(Image.fromarray(grey), image_format))
    assert pixels[0, :, 0].tolist() == [0, 0x12, 0xFF]


def test_32_bit_pixels_are_refused_with_advice() -> None:
    image = Image.fromarray(np.ones((4, 4), dtype=np.float32))
    with pytest.raises(InvalidImageError, match="8 or 16 bits"):
        pixels_of(from_pillow(image, "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_image_upright(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if image_format == "WEBP" else {}
    content = encode(PHOTO, image_format, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    assert difference(pixels_of(content), bgr(np.asarray(upright))) <= 1


def test_pixel_limit_is_checked_before_decoding() -> None:
    """The file ends after its header, so that decoding would fail in another way."""
    header = plain(width=300, height=200)[:60]
    with pytest.raises(TooLargeError, match="300 x 200"):
        pixels_of(header, 300 * 200 - 1)


def test_image_of_exactly_the_limit_is_read() -> None:
    assert pixels_of(plain(width=30, height=20), 600).shape == (20, 30, 3)


def test_bomb_that_pillow_refuses_is_too_large() -> None:
    bomb = bytearray(plain())
    bomb[16:24] = (60_000).to_bytes(4) * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    with pytest.raises(TooLargeError):
        pixels_of(bytes(bomb), 89_000_000)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_image_cut_in_half_is_invalid(image_format: str) -> None:
    content = encode(np.tile(PHOTO, (4, 4, 1)), image_format)
    with pytest.raises(InvalidImageError):
        pixels_of(content[: len(content) // 2])


@pytest.mark.parametrize("content", [b"hello", b"%PDF-1.7 ...", b"\0" * 100])
def test_other_files_are_unsupported(content: bytes) -> None:
    with pytest.raises(UnsupportedTypeError, match="accepted type"):
        pixels_of(content)


def test_damaged_header_is_invalid_rather_than_unsupported() -> None:
    with pytest.raises(InvalidImageError):
        pixels_of(plain(image_format="JPEG")[:12])


def test_jpeg_with_harmless_junk_is_still_read() -> None:
    content = encode(PHOTO, "JPEG", quality=95)
    junk = content[:2] + b"\xff\xff" + content[2:]
    assert difference(pixels_of(junk), pixels_of(content)) <= 1


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
                pixels = pixels_of(bytes(damaged))
            except (InvalidImageError, TooLargeError, UnsupportedTypeError):
                continue
            assert pixels.ndim == 3


def test_an_empty_file_is_a_malformed_request() -> None:
    with pytest.raises(MalformedRequestError, match="empty"):
        pixels_of(b"")


def test_whatever_a_decoder_raises_is_an_invalid_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("segment 3 is missing")

    monkeypatch.setattr("service.imaging.pillow_files.PngFile.decode", broken)
    with pytest.raises(InvalidImageError, match="the PNG is damaged or cut short") as caught:
        pixels_of(plain())
    assert "segment 3" not in caught.value.detail
    assert "segment 3" in str(caught.value.__cause__)


def test_a_jpeg_with_too_many_scans_is_refused_before_it_is_decoded() -> None:
    """Each scan is a pass over all pixels; two megabytes of scans took minutes."""
    content = encode(photo_like(640, 480), "JPEG", progressive=True)
    pixels_of(content)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImageError, match="scans"):
        pixels_of(content[:-2] + last_scan * 101 + content[-2:])


def test_data_after_a_jpeg_holds_none_of_its_scans() -> None:
    """Phones append a video, and cameras a second picture."""
    content = encode(photo_like(64, 48), "JPEG", progressive=True)
    film = b"\xff\xda\x00\x08" * 200
    np.testing.assert_array_equal(pixels_of(content + film), pixels_of(content))
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImageError, match="scans"):
        pixels_of(content[:-2] + last_scan * 101 + content[-2:] + film)


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\x02", b"\xff\xbf", b"\xff\xd0"])
def test_no_marker_without_a_length_hides_scans(marker: bytes) -> None:
    content = encode(photo_like(64, 48), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImageError, match="scans"):
        pixels_of(content[:-2] + marker + b"\xff\xff" + last_scan * 101 + content[-2:])


def test_a_thumbnail_does_not_end_the_jpeg_around_it() -> None:
    content = encode(photo_like(64, 48), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    thumbnail = b"\xff\xe1" + (2 + len(content)).to_bytes(2, "big") + content
    with pytest.raises(InvalidImageError, match="scans"):
        pixels_of(content[:2] + thumbnail + content[2:-2] + last_scan * 101 + content[-2:])


def test_a_run_length_encoded_bmp_is_refused() -> None:
    content = bytearray(from_pillow(Image.new("P", (8, 8)), "BMP"))
    content[30] = 1
    with pytest.raises(InvalidImageError, match="run-length"):
        pixels_of(bytes(content))


def tiff_with_tile(side: int) -> bytes:
    """A TIFF of 16 x 16 pixels in one tile with longer sides."""
    tags = [
        *((256, 3, 16), (257, 3, 16), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1)),
        *((322, 4, side), (323, 4, side), (324, 4, 200), (325, 4, 256)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    return head.ljust(200, b"\0") + b"\0" * 256


def test_a_tile_larger_than_its_tiff_counts_as_pixels() -> None:
    with pytest.raises(TooLargeError, match="20000 x 20000"):
        pixels_of(tiff_with_tile(20_000))


@pytest.fixture
def none_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imaging.read.SMALL_PIXELS", 0)


def test_an_image_without_memory_is_not_decoded_until_it_holds_what_it_needs() -> None:
    memory = ImageMemory(200 * 2**20)
    large, small = plain(width=4001, height=4000), plain()
    with memory.take(100 * 2**20):
        with pytest.raises(MemoryShortError) as short:
            read_image(large, 10**8, memory=memory)
        assert read_image(small, MANY, memory=memory).pixels.shape == (64, 64, 3)
    held = memory.wait(short.value.count, time.monotonic() + 30)
    photo = read_image(large, 10**8, memory=held)
    assert photo.pixels.shape == (4000, 4001, 3)
    assert photo.memory is held
    del photo, held
    assert memory.free == 200 * 2**20


@pytest.mark.usefixtures("none_is_small")
def test_a_photo_holds_its_memory_as_long_as_it_exists() -> None:
    memory = ImageMemory(2 * 2**20)
    photo = read_image(plain(width=300, height=300), MANY, memory=memory)
    assert memory.free == 2 * 2**20 - 13 * 300 * 300
    del photo
    assert memory.free == 2 * 2**20


@pytest.mark.usefixtures("none_is_small")
def test_a_damaged_image_gives_its_memory_back() -> None:
    memory = ImageMemory(2 * 2**20)
    with pytest.raises(InvalidImageError):
        read_image(encode(photo_like(200, 200))[:9000], MANY, memory=memory)
    assert memory.free == 2 * 2**20


@pytest.mark.usefixtures("none_is_small")
def test_an_image_that_no_memory_is_enough_for_is_refused_before_it_is_decoded() -> None:
    memory = ImageMemory(10 * 2**20)
    with pytest.raises(TooLargeError, match=r"12 MiB of memory, and the limit is 10 MiB; .*JPEG"):
        read_image(plain(width=1000, height=1000), MANY * 99, memory=memory)
    jpeg = plain(width=3000, height=2000, image_format="JPEG")
    photo = read_image(jpeg, MANY * 99, fit=(64, 64), memory=memory)
    assert (photo.width, photo.height) == (3000, 2000)


@pytest.mark.parametrize(
    ("width", "height", "reduced"),
    [
        (640, 480, (480, 640)),
        (2559, 800, (800, 2559)),
        (2560, 960, (480, 1280)),
        (801, 2561, (1281, 401)),
        (6000, 5121, (1281, 1500)),
        (10241, 400, (50, 1281)),
    ],
)
def test_a_jpeg_far_larger_than_what_it_fits_into_is_decoded_smaller(
    width: int, height: int, reduced: tuple[int, int]
) -> None:
    content = plain(width=width, height=height, image_format="JPEG")
    photo = read_image(content, 10**8, fit=(640, 640))
    assert (photo.width, photo.height) == (width, height)
    assert photo.pixels.shape == (*reduced, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_smaller_looks_the_same(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = np.repeat(np.repeat(photo_like(61, 40), 9, axis=0), 9, axis=1)
    content = encode(large, "JPEG", exif=exif, quality=95)
    whole, reduced = read_image(content, MANY), read_image(content, MANY, fit=(64, 64))
    assert (reduced.height, reduced.width) == (whole.height, whole.width)
    assert reduced.pixels.size < whole.pixels.size / 15
    expected, _ = letterbox(whole.pixels, 64, 64)
    size = (reduced.height, reduced.width)
    found, way_back = letterbox(reduced.pixels, 64, 64, image_size=size)
    assert (way_back.image_height, way_back.image_width) == size
    assert np.abs(found.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_damaged_exif_harms_no_image(image_format: str) -> None:
    content = encode(PHOTO, image_format, exif=b"Exif\0\0garbage!")
    assert b"garbage!" in content
    assert pixels_of(content).shape == PHOTO.shape


def test_only_jpegs_are_decoded_smaller() -> None:
    content = plain(width=1280, height=960)
    assert read_image(content, MANY, fit=(64, 64)).pixels.shape == (960, 1280, 3)


def test_a_wide_network_is_filled_by_images_of_either_orientation() -> None:
    """EXIF may turn an image, which is known only once it is decoded."""
    content = plain(width=400, height=1600, image_format="JPEG")
    photo = read_image(content, MANY, fit=(100, 800))
    assert photo.pixels.shape == (800, 200, 3)  # upright an eighth would do


@pytest.mark.parametrize("at", [0, 1])
def test_scans_are_counted_at_even_and_odd_offsets(at: int) -> None:
    content = encode(photo_like(64, 48), "JPEG", progressive=True)
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    pad = b"\xff" * at  # fill bytes before a marker mean nothing
    assert pixels_of(content[:2] + pad + content[2:]).shape == (48, 64, 3)
    with pytest.raises(InvalidImageError, match="scans"):
        pixels_of(content[:2] + pad + content[2:-2] + last_scan * 101 + content[-2:])
