"""Annotated images that were proved readable, with boxes that can be learnt from."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from model_export.data.annotations import AnnotatedImage, Annotations
from model_export.data.image_files import ImageCache, image_size, read_image
from model_export.errors import ModelExportError
from model_export.samples.augment import PictureSource
from model_export.samples.geometry import Picture

# So many faults or boxes are named in full.
MOST_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class DroppedBox:
    """A box that cannot be a target.

    Attributes:
        path: The image file.
        class_name: Its class.
        box_xyxy: As written, image pixels.
        reason: Why it was dropped.
    """

    path: Path
    class_name: str
    box_xyxy: tuple[float, float, float, float]
    reason: str


class TrainingData(Protocol):
    """What can be trained on."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class id to name."""

    def __len__(self) -> int:
        """Pictures of an epoch."""

    def pictures(self, cache: ImageCache | None) -> PictureSource:
        """The pictures by number, with a place to keep decoded files."""

    def report(self) -> list[str]:
        """What is there, in lines for a person."""


@dataclass(frozen=True, slots=True)
class CheckedImages:
    """A data set that may be trained on.

    Attributes:
        class_names: Class id to name.
        images: Each readable, its size known, its boxes within it and of positive area.
        dropped: The boxes that had none.
        crowd: How many annotations of crowds were left out.
    """

    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    dropped: tuple[DroppedBox, ...]
    crowd: int

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self, cache: ImageCache | None) -> "Examples":
        """The images by number, decoded each time if there is no cache."""
        return Examples(self, cache)

    def report(self) -> list[str]:
        """What is there and what was left out, in lines for a person."""
        boxes = sum(len(image.boxes_xyxy) for image in self.images)
        empty = sum(len(image.boxes_xyxy) == 0 for image in self.images)
        lines = [f"{len(self.images)} images ({empty} without boxes), {boxes} boxes"]
        if self.crowd:
            lines.append(f"annotations of crowds, which are no targets: {self.crowd}")
        if self.dropped:
            lines.append(f"boxes that cannot be targets: {len(self.dropped)}")
            lines += _first(
                f"{box.path}: {box.class_name} {list(box.box_xyxy)} {box.reason}"
                for box in self.dropped
            )
        return lines


def check_images(
    annotations: Annotations, on_image: Callable[[], None] = lambda: None
) -> CheckedImages:
    """Read every image file once, clip the boxes to the images, and drop those without area.

    All cores take part; a photo of 640 x 480 pixels costs one of them 2.5 ms.

    Args:
        annotations: What the data set says.
        on_image: Called after each image.

    Raises:
        ModelExportError: Files are missing, broken or of another size than the annotations say;
            the message names them, up to ten.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = []
        for outcome in threads.map(_with_size, annotations.images):
            outcomes.append(outcome)
            on_image()
    faults = [outcome for outcome in outcomes if isinstance(outcome, ModelExportError)]
    if faults:
        named = "; ".join(_first(map(str, faults)))
        raise ModelExportError(f"{len(faults)} of {len(outcomes)} images are unfit: {named}")
    images = [outcome for outcome in outcomes if isinstance(outcome, AnnotatedImage)]
    names = annotations.class_names
    dropped = [box for image in images for box in _degenerate(image, names)]
    return CheckedImages(names, tuple(map(_cleaned, images)), tuple(dropped), annotations.crowd)


@dataclass(frozen=True)
class Examples:
    """The pictures of a data set by number, read when asked for; may be sent to other processes.

    Attributes:
        data: The checked data set.
        cache: Where decoded images are kept, or None to decode them each time.
    """

    data: CheckedImages
    cache: ImageCache | None = None

    @cached_property
    def labelled(self) -> Sequence[int]:
        """The numbers of the images with at least one box."""
        return [i for i, image in enumerate(self.data.images) if len(image.boxes_xyxy)]

    def __len__(self) -> int:
        return len(self.data.images)

    def at_epoch(self, _epoch: int) -> "Examples":
        """The same pictures in each."""
        return self

    def __getitem__(self, index: int) -> Picture:
        """Image number `index`, and its boxes in pixels of it.

        Raises:
            ModelExportError: The file cannot be read, or is no more what it was.
        """
        entry = self.data.images[index]
        image = self.cache.read(entry.path) if self.cache else read_image(entry.path)
        if image.shape[:2] != entry.size:
            raise ModelExportError(f"{entry.path} changed since it was checked")
        return Picture(image, entry.boxes_xyxy, entry.class_ids)


def _with_size(image: AnnotatedImage) -> AnnotatedImage | ModelExportError:
    try:
        size = image_size(image.path)
    except ModelExportError as error:
        return error
    if image.size in (None, size):
        return replace(image, size=size)
    # Boxes drawn on other pixels, such as on a photo that was not turned upright, teach nonsense.
    return ModelExportError(
        f"{image.path} is {size[1]} x {size[0]} pixels the right way up, and its annotations are "
        f"for {image.size[1]} x {image.size[0]}"
    )


def _clipped(image: AnnotatedImage) -> NDArray[np.float32]:
    height, width = image.size or (0, 0)
    limits = np.array([width, height, width, height], dtype=np.float32)
    return np.clip(image.boxes_xyxy, 0, limits)


def _has_area(boxes_xyxy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(K,) bool of (K, 4) boxes; False for those that are not finite."""
    ordered = boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]
    finite = np.isfinite(boxes_xyxy)
    return np.asarray(np.concatenate([ordered, finite], axis=1).all(axis=1))


def _cleaned(image: AnnotatedImage) -> AnnotatedImage:
    boxes = _clipped(image)
    keep = _has_area(image.boxes_xyxy) & _has_area(boxes)
    return replace(image, boxes_xyxy=boxes[keep], class_ids=image.class_ids[keep])


def _degenerate(image: AnnotatedImage, class_names: Sequence[str]) -> Iterator[DroppedBox]:
    sound = _has_area(image.boxes_xyxy)
    for i in np.flatnonzero(~(sound & _has_area(_clipped(image)))).tolist():
        reason = "is outside of the image" if sound[i] else "has no area"
        x1, y1, x2, y2 = image.boxes_xyxy[i].tolist()
        name = class_names[image.class_ids[i]]
        yield DroppedBox(image.path, name, (x1, y1, x2, y2), reason)


def _first(texts: Iterable[str]) -> list[str]:
    """The first few, and how many more there are."""
    every = list(texts)
    rest = len(every) - MOST_NAMED
    return every[:MOST_NAMED] + ([f"and {rest} more"] if rest > 0 else [])
