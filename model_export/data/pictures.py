"""Pictures to make samples of, by number: what a training needs of its data, and image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from model_export.data.annotations import AnnotatedImage
from model_export.data.image_cache import ImageCache
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from model_export.samples.augment import PictureSource
from model_export.samples.geometry import Picture


class TrainingData(Protocol):
    """Data that a model can be trained on."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class id to name."""

    def __len__(self) -> int:
        """The number of pictures in an epoch."""

    def pictures(self, cache: ImageCache | None) -> PictureSource:
        """The pictures by number; `cache` keeps decoded files, if there are any."""

    def report(self) -> list[str]:
        """A description of the data, in lines for a person."""


@dataclass(frozen=True)
class FilePictures:
    """The pictures of annotated image files; other processes may be sent a copy.

    Attributes:
        images: The files and their boxes; the sizes are known.
        cache: Keeps decoded images; without one, a file is decoded each time it is asked for.
    """

    images: Sequence[AnnotatedImage]
    cache: ImageCache | None = None

    @cached_property
    def labelled(self) -> Sequence[int]:
        """The numbers of the images with at least one box."""
        return [i for i, image in enumerate(self.images) if len(image.boxes_xyxy)]

    def __len__(self) -> int:
        return len(self.images)

    def at_epoch(self, _epoch: int) -> "FilePictures":
        """Files are the same in every epoch."""
        return self

    def __getitem__(self, index: int) -> Picture:
        """Image number `index`, and its boxes in pixels of it.

        Raises:
            ModelExportError: The file cannot be read, or has another size than it had.
        """
        entry = self.images[index]
        image = self.cache.read(entry.path) if self.cache else read_image(entry.path)
        if image.shape[:2] != entry.size:
            raise ModelExportError(f"{entry.path} changed since it was checked")
        return Picture(image, entry.boxes_xyxy, entry.class_ids)
