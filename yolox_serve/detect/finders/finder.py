"""What finds objects."""

from collections.abc import Sequence
from typing import Protocol

from yolox_client import ImageResult


class Finder(Protocol):
    """Finds objects in images.

    Attributes:
        class_names: The names of the model's classes.
        batch: Images that are handed over together.
    """

    class_names: tuple[str, ...]
    batch: int

    async def detect(self, images: Sequence[bytes]) -> list[ImageResult]:
        """The result of each image file."""
