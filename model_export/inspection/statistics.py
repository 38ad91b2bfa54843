"""Counts of what is in a data set, as a network of a certain size sees it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.checked_images import CheckedImages

# COCO's limits between small, medium and large objects: the square roots of their areas, in pixels.
MEDIUM: Final = 32
LARGE: Final = 96


@dataclass(frozen=True, slots=True)
class NetworkView:
    """How a network sees boxes.

    Attributes:
        height: Input height in pixels.
        width: Input width in pixels.
        min_side: Boxes with a shorter side are no targets, network pixels.
    """

    height: int
    width: int
    min_side: float


@dataclass(frozen=True, slots=True)
class ClassCount:
    """The boxes of a class in one data set.

    Attributes:
        boxes: How many there are.
        images: How many images have at least one.
        side: Median of the square roots of their areas, network pixels; 0 without boxes.
        small: How many have a side below `MEDIUM`, network pixels.
        medium: How many are between `MEDIUM` and `LARGE`.
        large: How many have a side of at least `LARGE`.
        lost: How many are too narrow to be targets.
    """

    boxes: int
    images: int
    side: float
    small: int
    medium: int
    large: int
    lost: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The content of a data set in numbers.

    Attributes:
        images: How many images there are.
        empty: How many of them have no objects.
        classes: The counts of each class, by its id.
        sizes: Height and width of images, upright, and how many have them; the commonest first.
    """

    images: int
    empty: int
    classes: tuple[ClassCount, ...]
    sizes: tuple[tuple[tuple[int, int], int], ...]

    @property
    def boxes(self) -> int:
        """All boxes."""
        return sum(each.boxes for each in self.classes)

    @property
    def lost(self) -> int:
        """The boxes that are too narrow to be targets."""
        return sum(each.lost for each in self.classes)


def statistics(data: CheckedImages, view: NetworkView) -> Statistics:
    """Count what is in a data set."""
    sides = [_network_sides(image.boxes_xyxy, image.size or (1, 1), view) for image in data.images]
    all_sides = np.concatenate([np.zeros((0, 2)), *sides])
    owners = np.repeat(np.arange(len(sides)), [len(each) for each in sides])
    ids = np.concatenate([np.zeros(0, np.int64), *(image.class_ids for image in data.images)])
    counts = [
        _class_count(all_sides[ids == class_id], owners[ids == class_id], view.min_side)
        for class_id in range(len(data.class_names))
    ]
    sizes = Counter(image.size or (1, 1) for image in data.images)
    empty = sum(len(each) == 0 for each in sides)
    return Statistics(len(data.images), empty, tuple(counts), tuple(sizes.most_common()))


def aspects(sizes: Sequence[tuple[tuple[int, int], int]]) -> NDArray[np.float64]:
    """Width over height of each image, sorted."""
    return np.sort([width / height for (height, width), count in sizes for _ in range(count)])


def _network_sides(
    boxes_xyxy: NDArray[np.float32], size: tuple[int, int], view: NetworkView
) -> NDArray[np.float64]:
    """(K, 2) widths and heights in network pixels; the letterbox keeps the aspect."""
    ratio = min(view.height / size[0], view.width / size[1])
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * ratio, dtype=np.float64)


def _class_count(
    sides: NDArray[np.float64], owners: NDArray[np.int64], min_side: float
) -> ClassCount:
    means = np.sqrt(sides.prod(axis=1))
    small, large = int((means < MEDIUM).sum()), int((means >= LARGE).sum())
    return ClassCount(
        boxes=len(sides),
        images=len(np.unique(owners)),
        side=float(np.median(means)) if len(means) else 0.0,
        small=small,
        medium=len(sides) - small - large,
        large=large,
        lost=int((sides.min(axis=1, initial=np.inf) < min_side).sum()),
    )
