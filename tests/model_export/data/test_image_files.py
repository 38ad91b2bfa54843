"""One decoder: the server, an evaluation and a training see the same pixels of a file."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model_export.data.annotations import AnnotatedImage, Annotations
from model_export.data.checked_images import check_images
from model_export.data.image_files import MAX_PIXELS, image_size, read_image
from model_export.errors import ModelExportError
from model_export.measure.local_detector import LocalDetector
from model_export.samples.augment import augment
from model_export.samples.batch_plan import SampleSpec
from model_export.samples.settings import Augmentation
from service.core.contract import InputSpec, ModelContract
from service.core.letterbox import LetterboxMode
from service.core.suppress import DetectionOptions
from service.pipeline.stages import ImageSource, ImageTask, PreparedImage, Stages
from service.settings import Settings
from support.pictures import encode, photo_like

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 61, 40
PHOTO = photo_like(WIDTH, HEIGHT)
SIDE = 96
CONTRACT = ModelContract("tiny", "1", InputSpec("images", SIDE, SIDE), ("cat",))
# Samples as they are in the last epochs, with nothing left to chance.
UNCHANGED = Augmentation(flip_probability=0, hsv_probability=0)


def from_pillow(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def from_opencv(pixels: NDArray[np.generic]) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def with_alpha() -> Image.Image:
    """The photo, from invisible on its left to opaque on its right."""
    image = Image.fromarray(PHOTO)
    image.putalpha(
        Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1)))
    )
    return image


def sixteen_bit(channels: int) -> NDArray[np.uint16]:
    shape = (HEIGHT, WIDTH, channels)[: 2 if channels == 1 else 3]
    return np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)


def palette_with_transparency() -> bytes:
    image = Image.fromarray(PHOTO).quantize(16)
    return from_pillow(image, transparency=bytes(range(0, 256, 16)))


def turned(image_format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(PHOTO, image_format, exif=exif)


FILES: dict[str, Callable[[], bytes]] = {
    "RGB PNG": lambda: encode(PHOTO),
    "RGBA PNG": lambda: from_pillow(with_alpha()),
    "palette PNG with tRNS": palette_with_transparency,
    "RGB PNG with tRNS": lambda: from_pillow(
        Image.fromarray(PHOTO), transparency=tuple(PHOTO[0, 0].tolist())
    ),
    "grey PNG with alpha": lambda: from_pillow(with_alpha().convert("LA")),
    "16-bit grey PNG": lambda: from_opencv(sixteen_bit(1)),
    "16-bit RGB PNG": lambda: from_opencv(sixteen_bit(3)),
    "16-bit RGBA PNG": lambda: from_opencv(sixteen_bit(4)),
    "1-bit PNG": lambda: from_pillow(Image.fromarray(PHOTO).convert("1")),
    "JPEG": lambda: encode(PHOTO, "JPEG"),
    "progressive JPEG": lambda: encode(PHOTO, "JPEG", progressive=True),
    "JPEG with junk": lambda: (jpeg := encode(PHOTO, "JPEG"))[:2] + b"\xff\xff" + jpeg[2:],
    "grey JPEG": lambda: from_pillow(Image.fromarray(PHOTO).convert("L"), "JPEG"),
    "CMYK JPEG": lambda: from_pillow(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "GIF": lambda: encode(PHOTO, "GIF"),
    "WebP": lambda: encode(PHOTO, "WEBP"),
    "WebP with alpha": lambda: from_pillow(with_alpha(), "WEBP", lossless=True),
    "BMP": lambda: encode(PHOTO, "BMP"),
    "CMYK TIFF": lambda: from_pillow(Image.fromarray(PHOTO).convert("CMYK"), "TIFF"),
    "AVIF": lambda: encode(PHOTO, "AVIF"),
    **{
        f"{image_format} of orientation {orientation}": partial(turned, image_format, orientation)
        for image_format in ("JPEG", "PNG", "TIFF", "WEBP")
        for orientation in range(1, 9)
    },
}


def served(
    content: bytes, mode: LetterboxMode = "square", *, keep_pixels: bool = False
) -> PreparedImage:
    """The network input that the server makes of a request's image."""
    stages = Stages(CONTRACT, mode, Settings.model_fields["max_image_pixels"].default)
    return stages.prepare(ImageTask(ImageSource(content), DetectionOptions(), keep_pixels))


def evaluated(content: bytes) -> Pixels:
    """The network input that an evaluation makes of a file."""
    seen: list[Pixels] = []

    def network(images: Pixels) -> NDArray[np.floating]:
        seen.append(images[0])
        cells = CONTRACT.num_cells(SIDE, SIDE)
        return np.full((1, cells, CONTRACT.output_channels), -9, np.float32)

    LocalDetector(network, CONTRACT, DetectionOptions(), "square").detect(content)
    (canvas,) = seen
    return canvas


def trained_on(path: Path) -> Pixels:
    """The sample that a training's last epochs make of a file."""
    image = AnnotatedImage(path, 1, None, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    pictures = check_images(Annotations(("cat",), (image,))).pictures(None)
    return augment(pictures, SampleSpec(0, 0, SIDE, SIDE, closing=True), UNCHANGED, seed=0).image


@pytest.mark.parametrize("kind", FILES)
def test_server_evaluation_and_training_see_the_same_pixels(kind: str, tmp_path: Path) -> None:
    content = FILES[kind]()
    path = tmp_path / "file"
    path.write_bytes(content)

    expected = served(content, keep_pixels=True)

    assert expected.photo is not None
    pixels = expected.photo.pixels
    np.testing.assert_array_equal(read_image(path), pixels)
    assert image_size(path) == pixels.shape[:2]
    assert pixels.std() > 20, "a picture of nothing would prove nothing"
    np.testing.assert_array_equal(evaluated(content), expected.tensor)
    np.testing.assert_array_equal(trained_on(path), expected.tensor)


@pytest.mark.parametrize("kind", ["RGBA PNG", "grey PNG with alpha", "WebP with alpha"])
def test_what_is_invisible_is_learnt_as_white(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(FILES[kind]())
    pixels = read_image(tmp_path / "file")
    assert (pixels[:, 0] == 255).all()
    assert not (pixels[:, -1] == 255).all()


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_evaluation_decodes_large_jpegs_as_small_as_the_server_does(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = np.repeat(np.repeat(PHOTO, 9, axis=0), 9, axis=1)
    content = encode(large, "JPEG", exif=exif)
    reduced, whole = served(content), served(content, keep_pixels=True)
    assert (reduced.tensor != whole.tensor).any()
    np.testing.assert_array_equal(evaluated(content), reduced.tensor)


def test_a_training_takes_larger_pictures_than_the_server(tmp_path: Path) -> None:
    limit = Settings.model_fields["max_image_pixels"].default
    path = tmp_path / "a.png"
    Image.new("1", (10_000, limit // 10_000 + 1), 1).save(path)
    assert image_size(path) == (limit // 10_000 + 1, 10_000)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_more_pixels_than_can_be_held_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (20_000, MAX_PIXELS // 20_000 + 1)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelExportError, match=rf"{path}: the image .* pixels"):
        image_size(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "the image is empty"),
        (b"no image", "this is not an image of an accepted type"),
        (encode(PHOTO)[:200], "the image cannot be decoded"),
        (encode(PHOTO, "JPEG")[:400], "the image cannot be decoded"),
        (from_pillow(Image.new("F", (8, 8)), "TIFF"), "this TIFF is 32-bit floating-point grey"),
    ],
)
def test_an_unreadable_file_is_named_in_one_line(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(ModelExportError) as caught:
            read(path)
        assert str(caught.value).startswith(f"cannot read the image {path}: {complaint}")
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelExportError, match=complaint):
        evaluated(content)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match=r"a\.png: it is missing"):
        image_size(tmp_path / "a.png")


def test_a_turned_tiff_is_as_wide_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = tmp_path / "a.tif"
    Image.fromarray(photo_like(40, 60)).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_every_kind_of_image_becomes_three_channels(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(photo_like(30, 20)).convert(mode).save(path)
    assert read_image(path).shape == (20, 30, 3)
