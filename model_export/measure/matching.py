"""Which detections are right: each object is matched with one detection of its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from model_export.data.annotations import AnnotatedImage
from service.core.decode import Detections
from service.core.suppress import BoxEdges, iou_with

MATCH_IOU: Final = 0.5


@dataclass(frozen=True, slots=True)
class Matches:
    """The detections of some images, and whether they are right.

    Attributes:
        scores: (K,) float32.
        right: (K,) bool: whether an object of the class has the box, at IoU 0.50 or more.
        class_ids: (K,) int64.
        truth_ids: (G,) int64, the classes of the objects.
    """

    scores: NDArray[np.float32]
    right: NDArray[np.bool_]
    class_ids: NDArray[np.int64]
    truth_ids: NDArray[np.int64]

    @property
    def objects(self) -> int:
        """How many objects there are to find."""
        return len(self.truth_ids)

    def of_class(self, class_id: int) -> Self:
        """The detections and objects of one class."""
        own = self.class_ids == class_id
        truths = self.truth_ids[self.truth_ids == class_id]
        return type(self)(self.scores[own], self.right[own], self.class_ids[own], truths)


def match(found: Sequence[Detections], images: Sequence[AnnotatedImage]) -> Matches:
    """Match the detections of each image with its objects, the most confident detection first.

    Each takes the object of its class that it overlaps most among those not yet taken.

    Args:
        found: Per image, detections in image pixels, best first.
        images: The images with their objects, in the same order.
    """
    right = [_right(detections, image) for detections, image in zip(found, images, strict=True)]
    none_i, none_f = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Matches(
        scores=np.concatenate([none_f, *(each.scores for each in found)]),
        right=np.concatenate([np.zeros(0, np.bool_), *right]),
        class_ids=np.concatenate([none_i, *(each.class_ids for each in found)]),
        truth_ids=np.concatenate([none_i, *(image.class_ids for image in images)]),
    )


def _right(found: Detections, image: AnnotatedImage) -> NDArray[np.bool_]:
    right = np.zeros(len(found), np.bool_)
    for class_id in np.intersect1d(found.class_ids, image.class_ids).tolist():
        own = np.flatnonzero(found.class_ids == class_id)
        truths = BoxEdges.of(image.boxes_xyxy[image.class_ids == class_id])
        free = np.ones(len(truths.areas), np.bool_)
        for place in own.tolist():
            overlaps = np.where(free, truths.iou_with(found.boxes_xyxy[place]), 0)
            best = int(overlaps.argmax())
            if overlaps[best] >= MATCH_IOU:
                free[best], right[place] = False, True
    return right


def confusion(
    found: Sequence[Detections], images: Sequence[AnnotatedImage], classes: int
) -> NDArray[np.int64]:
    """Count the classes that objects were taken for, each at most once, at IoU 0.50 or more.

    Args:
        found: Per image, detections in image pixels, best first.
        images: The images with their objects, in the same order.
        classes: C, the number of classes.

    Returns:
        (C + 1, C + 1): rows are true classes, columns what was found. The last row counts
        detections where no object is, and the last column objects that were missed.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for detections, image in zip(found, images, strict=True):
        taken = taken_by(detections, image)
        missed = np.setdiff1d(np.arange(len(image.class_ids)), taken)
        truths = np.append(image.class_ids, classes)  # index -1 is no object
        np.add.at(counts, (truths[taken], detections.class_ids), 1)
        counts[:, classes] += np.bincount(image.class_ids[missed], minlength=classes + 1)
    return counts


def taken_by(found: Detections, image: AnnotatedImage) -> NDArray[np.int64]:
    """(K,) the object that each detection covers at IoU 0.50 or more, -1 for none.

    An object is taken once. Detections of its class come first, and the more confident before the
    less confident.
    """
    taken = np.full(len(found), -1, np.int64)
    free = np.ones(len(image.class_ids), np.bool_)
    for same_class in (True, False):
        for place in np.flatnonzero(taken < 0).tolist() if free.any() else ():
            overlaps = iou_with(found.boxes_xyxy[place], image.boxes_xyxy)
            fits = (image.class_ids == found.class_ids[place]) == same_class
            overlaps = np.where(free & fits, overlaps, 0)
            best = int(overlaps.argmax())
            if overlaps[best] >= MATCH_IOU:
                free[best], taken[place] = False, best
    return taken
