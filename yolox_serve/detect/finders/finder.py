"""The interface of everything that finds objects."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from yolox_client import ImageResult


class Finder(Protocol):
    """Finds objects in images.

    Attributes:
        class_names: The names of the model's classes.
        batch: Images that are handed over together.
        found_by: The model's `name` and `version`, the engine's `provider` and `precision`, and of
            a model here the `digest`.
    """

    class_names: tuple[str, ...]
    batch: int
    found_by: Mapping[str, str]

    async def detect(self, images: Sequence[bytes]) -> list[ImageResult]:
        """The result of each image file."""
