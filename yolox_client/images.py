"""Images in every form in which Python programs have them, as the bytes of an image file."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Literal, TypeAlias, Union, cast

from yolox_client.errors import UnusableImageError, needing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PillowImage

    Pixels: TypeAlias = NDArray[np.uint8]

Channels = Literal["RGB", "BGR"]
Encoding = Literal["png", "jpeg"]
ImageInput: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    IO[bytes],
    "Pixels",
    "PillowImage",
]

JPEG_QUALITY: Final = 95
RANGELESS_MODES: Final = frozenset({"I", "F"})


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The bytes of an image file, and the name that results carry."""

    content: bytes
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class PixelForm:
    """How arrays and Pillow images become files.

    Attributes:
        channels: Order of the colours in arrays of three channels; it cannot be seen, so such
            arrays are refused without it.
        encoding: `png` keeps every pixel; `jpeg` is several times smaller and quicker to make.
    """

    channels: Channels | None = None
    encoding: Encoding = "png"


def as_file(image: ImageInput, form: PixelForm) -> ImageFile:
    """The file of an image.

    Args:
        image: A path, the bytes of an image file, an open binary file, a (h, w) grey or (h, w, 3)
            array of uint8, or a Pillow image.
        form: How arrays and Pillow images become files.

    Raises:
        UnusableImageError: The file cannot be read.
        TypeError: This is no image.
        ValueError: The array is none of these, or has colours and nobody said in which order.
        ModuleNotFoundError: An array needs NumPy and Pillow, and one is not installed.
    """
    if isinstance(image, str | os.PathLike):
        return _read(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return ImageFile(bytes(image))
    if hasattr(image, "read"):
        name = getattr(image, "name", None)
        return ImageFile(image.read(), Path(name).name if isinstance(name, str) else None)
    if hasattr(image, "dtype") and hasattr(image, "shape"):
        return ImageFile(_encoded(_as_pillow(cast("Pixels", image), form.channels), form.encoding))
    if hasattr(image, "mode") and hasattr(image, "convert"):
        return ImageFile(_encoded(image, form.encoding))
    raise TypeError(
        f"{type(image).__name__} is no image; take a path, bytes, a binary file, a NumPy array of "
        "uint8 or a Pillow image"
    )


def _read(path: "str | os.PathLike[str]") -> ImageFile:
    text = os.fspath(path)
    if text.startswith(("http://", "https://", "s3://", "data:")):
        raise UnusableImageError(
            f"{text[:80]} is an address, and the client reads files; download it and pass its bytes"
        )
    try:
        return ImageFile(Path(text).read_bytes(), Path(text).name)
    except (OSError, ValueError) as error:
        raise UnusableImageError(f"cannot read {text}: {error}") from error


def _as_pillow(array: "Pixels", channels: Channels | None) -> "PillowImage":
    """A Pillow image of (h, w) or (h, w, 3) uint8."""
    with needing("NumPy and Pillow: pip install numpy pillow"):
        import numpy as np  # noqa: PLC0415 - needed only for arrays
        from PIL import Image  # noqa: PLC0415 - likewise

    pixels = np.asarray(array)
    colored = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or colored) or 0 in pixels.shape:
        raise ValueError(
            f"an array must be uint8 of shape (h, w) or (h, w, 3), not {pixels.dtype} of "
            f"{pixels.shape}"
        )
    if colored and channels not in ("RGB", "BGR"):
        raise ValueError(
            "say in which order the array has its colours: channels='BGR' for OpenCV's, 'RGB' for "
            "those of Pillow, imageio and scikit-image"
        )
    if colored and channels == "BGR":
        pixels = pixels[:, :, ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _encoded(picture: "PillowImage", encoding: Encoding) -> bytes:
    """The picture as it is in memory: its file has no EXIF orientation that would turn it again."""
    if picture.mode in RANGELESS_MODES:
        raise ValueError(
            f"a Pillow image of mode {picture.mode} has no fixed range; convert it to RGB first"
        )
    transparent = "A" in picture.mode or "transparency" in picture.info
    deep = picture.mode.startswith("I;16")
    plain = picture.copy() if deep else picture.convert("RGBA" if transparent else "RGB")
    plain.info = {}
    buffer = io.BytesIO()
    if encoding == "jpeg" and not transparent and not deep:
        plain.save(buffer, "JPEG", quality=JPEG_QUALITY)
    else:
        # Level 1 is several times faster than the default, for a file that is a tenth larger.
        plain.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
