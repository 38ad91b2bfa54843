"""Images in every form reach a server as the same pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.pictures import encode, photo_like
from yolox_client import UnusableImageError
from yolox_client.images import Channels, PixelForm, as_file

RGB = photo_like(40, 30)
BGR = np.ascontiguousarray(RGB[:, :, ::-1])
ORIENTATION = 0x0112


def pixels(image: Any, channels: Channels | None = None) -> Any:
    content = as_file(image, PixelForm(channels)).content
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (RGB, "RGB"),
        (BGR, "BGR"),
        (RGB[:, :, ::-1], "BGR"),
        (encode(RGB), None),
        (bytearray(encode(RGB)), None),
        (memoryview(encode(RGB)), None),
        (io.BytesIO(encode(RGB)), None),
        (Image.fromarray(RGB), None),
        (Image.fromarray(RGB).convert("RGBA"), None),
    ],
)
def test_every_form_keeps_every_pixel(image: Any, channels: Any) -> None:
    assert np.array_equal(pixels(image, channels), RGB)


def test_a_path_is_read_and_gives_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(encode(RGB))
    for form in (path, str(path)):
        file = as_file(form, PixelForm())
        assert (file.content, file.filename) == (path.read_bytes(), "a b.png")
    with path.open("rb") as opened:
        assert as_file(opened, PixelForm()).filename == "a b.png"


def test_colours_without_an_order_are_refused() -> None:
    with pytest.raises(ValueError, match="channels='BGR' for OpenCV"):
        as_file(RGB, PixelForm())
    assert np.array_equal(pixels(RGB[:, :, 0])[:, :, 0], RGB[:, :, 0])


@pytest.mark.parametrize(
    "array",
    [RGB / 255, RGB[0, 0], np.dstack([RGB, RGB]), np.empty((0, 4, 3), np.uint8), RGB[None]],
)
def test_an_array_that_is_no_image_is_refused(array: Any) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \(h, w\)"):
        as_file(array, PixelForm("RGB"))


@pytest.mark.parametrize("thing", [3, None, {"a": 1}, ["a.jpg"]])
def test_a_thing_that_is_no_image_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError, match="is no image"):
        as_file(thing, PixelForm())


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_addresses_are_not_fetched(address: str) -> None:
    with pytest.raises(UnusableImageError, match="download it and pass its bytes"):
        as_file(address, PixelForm())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableImageError, match=r"no\.jpg"):
        as_file(tmp_path / "no.jpg", PixelForm())


def test_a_pillow_image_stays_as_it_is_in_memory() -> None:
    """The server would turn it by its EXIF orientation; then boxes would be of another picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    opened = Image.open(io.BytesIO(encode(RGB, "JPEG", exif=exif)))
    assert opened.getexif()[ORIENTATION] == 6
    for encoding in ("png", "jpeg"):
        file = as_file(opened, PixelForm(encoding=encoding))  # type: ignore[arg-type]
        sent = Image.open(io.BytesIO(file.content))
        assert (sent.size, dict(sent.getexif())) == (opened.size, {})


def test_16_bits_stay_16_bits_and_no_range_is_guessed() -> None:
    deep = Image.fromarray((RGB[:, :, 0].astype(np.uint16) << 8) | 255)
    sent = Image.open(io.BytesIO(as_file(deep, PixelForm()).content))
    assert np.array_equal(np.asarray(sent) >> 8, RGB[:, :, 0])
    with pytest.raises(ValueError, match="convert it to RGB"):
        as_file(Image.new("F", (4, 4)), PixelForm())


def test_jpeg_is_smaller() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    png, jpeg = (as_file(noise, PixelForm("RGB", form)).content for form in ("png", "jpeg"))  # type: ignore[arg-type]
    assert len(jpeg) < len(png) / 2
    assert jpeg[:2] == b"\xff\xd8"
