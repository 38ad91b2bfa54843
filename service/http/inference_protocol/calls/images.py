"""The input `image`: files, or pixels, in the forms that the protocol has for tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import MalformedRequestError, TooLargeError
from service.http.bodies.multipart import too_many_images
from service.http.inference_protocol.calls.tensors import split_elements
from service.pipeline.stages import ImageSource, PixelSource, Source

IMAGE: Final = "image"
CHANNELS: Final = 3
# More pixels as text would occupy the server for too long: 256 x 256 of them are parsed in 30 ms.
MAX_TEXT_VALUES: Final = 3 * 256 * 256
PIXEL_VALUES: Final = np.arange(256)

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageTensor:
    """The input as it came.

    Attributes:
        datatype: The type of its elements.
        shape: The length of each axis.
        content: Its form as bytes; or image files, the elements of BYTES; or numbers.
    """

    datatype: str
    shape: Shape
    content: memoryview | Sequence[ImageSource] | NDArray[Any]


def read_images(tensor: ImageTensor, max_images: int) -> list[Source]:
    """The images of the input.

    Args:
        tensor: The input.
        max_images: Maximum images of a request.

    Raises:
        MalformedRequestError: The input has another type, shape or length than it may.
        TooLargeError: It has more images than a request may.
    """
    match tensor.datatype:
        case "BYTES":
            count = _count(tensor.shape, max_images, is_shape_of_files(tensor.shape))
            return [*_files(tensor.content, count)]
        case "UINT8":
            is_pixels = len(tensor.shape) == 4 and tensor.shape[-1] == CHANNELS
            _count(tensor.shape, max_images, is_pixels and min(tensor.shape[1:]) > 0)
            return [PixelSource(pixels) for pixels in _pixels(tensor.content, tensor.shape)]
        case other:
            raise MalformedRequestError(
                f"input image has datatype {other!r:.40}; send BYTES (files) or UINT8 (pixels)"
            )


def is_shape_of_files(shape: Shape) -> bool:
    """Whether a BYTES tensor of this shape holds a file for each image: [N], or [N, 1]."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers of a list, which may be nested row by row.

    Raises:
        MalformedRequestError: They are no numbers, or the rows differ in length.
        TooLargeError: There are too many for a list.
    """
    try:
        # Without a type, one long text among the numbers would make every element as long.
        listed = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedRequestError(
            "input image: its data must be numbers, in rows of one length where they are nested"
        ) from error
    if listed.size > MAX_TEXT_VALUES:
        raise TooLargeError(
            f"input image: as text it may have at most {MAX_TEXT_VALUES} numbers; send pixels as "
            "binary data, or an image file as BYTES"
        )
    if _types(values) & {bool, str}:
        raise MalformedRequestError(
            "input image: its data must be numbers, not strings or booleans"
        )
    return listed


def _types(values: Sequence[Any]) -> set[type]:
    """The types of all elements of a list, which may be nested."""
    found = set(map(type, values))
    if list in found:
        rows = [_types(each) for each in values if isinstance(each, list)]
        found = found.difference([list]).union(*rows)
    return found


def _count(shape: Shape, max_images: int, is_right: bool) -> int:
    """The number of images in a tensor of this shape."""
    if not is_right or shape[0] < 1:
        raise MalformedRequestError(
            f"input image has shape {list(shape)!s:.80}; it must be [N] for BYTES, one image "
            "file each, and [N, height, width, 3] for UINT8"
        )
    if shape[0] > max_images:
        raise too_many_images(max_images)
    return shape[0]


def _files(content: memoryview | Sequence[ImageSource] | NDArray[Any], count: int) -> list[Source]:
    if isinstance(content, memoryview):
        return [ImageSource(each) for each in split_elements(content, count, IMAGE)]
    if isinstance(content, np.ndarray) or len(content) != count:
        raise MalformedRequestError(
            f"input image: its shape promises {count} elements, and its data holds {len(content)}"
        )
    return list(content)


def _pixels(
    content: memoryview | Sequence[ImageSource] | NDArray[Any], shape: Shape
) -> NDArray[np.uint8]:
    """(N, h, w, 3) uint8 RGB pixels."""
    if isinstance(content, memoryview):
        values: NDArray[Any] = np.frombuffer(content, np.uint8)
    else:
        values = np.asarray(content) if isinstance(content, np.ndarray) else np.empty(0)
    if values.size != prod(shape):
        raise MalformedRequestError(
            f"input image: its shape promises {prod(shape)} elements, and its data holds "
            f"{values.size}"
        )
    if values.dtype != np.uint8 and not np.isin(values, PIXEL_VALUES).all():
        raise MalformedRequestError("input image: pixels must be whole numbers from 0 to 255")
    return values.astype(np.uint8, copy=False).reshape(shape)
