"""The interface that all kinds of image files share."""

import io
from abc import ABC, abstractmethod
from typing import ClassVar

from PIL import Image
from PIL import ImageFile as PillowImageFile

from service.imaging.kinds import Kind
from service.imaging.pixels import Pixels

Size = tuple[int, int]


class ImageFile(ABC):
    """An image file of which the header is read, and no pixel.

    Attributes:
        kind: The kind of file.
        width: Width of the image in pixels, as stored.
        height: Its height.
        decoded_size: (width, height) that decoding fills, if that is more than the image has.
    """

    kind: ClassVar[Kind]
    width: int
    height: int
    decoded_size: Size

    def close(self) -> None:  # noqa: B027 - most kinds hold nothing
        """Give back what the file holds; a second call does nothing."""

    @abstractmethod
    def peak_bytes(self, fit: Size | None) -> int:
        """An upper bound of the memory that decoding takes, copies included.

        Args:
            fit: (height, width) in pixels that the image will be fitted into; None for all pixels.
        """

    @abstractmethod
    def header_orientation(self) -> int | None:
        """The EXIF orientation that `decode` will tell; None if only decoding reveals it."""

    @abstractmethod
    def decode(self, fit: Size | None) -> tuple[Pixels, int]:
        """Decode the image.

        Args:
            fit: As for `peak_bytes`; the image may be decoded smaller, but not below twice this.

        Returns:
            The pixels as stored, (h, w, 3) uint8, BGR, and their EXIF orientation.

        Raises:
            InvalidImageError: The file would take far longer than its size suggests; no thread can
                be stopped.
        """


def open_with_pillow(content: bytes, formats: tuple[str, ...]) -> PillowImageFile.ImageFile:
    """Read the header of a file with Pillow.

    Args:
        content: The bytes of the file.
        formats: Pillow's names of the formats that it may have.

    Raises:
        Exception: Pillow cannot read it; the class varies.
    """
    return Image.open(io.BytesIO(content), formats=formats)
