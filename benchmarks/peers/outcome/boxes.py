"""The boxes of two servers: read from their answers, compared, and measured by annotations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.errors import ModelExportError
from model_export.measure.coco import CocoResult, CocoSet, measure
from service.core.suppress import iou_with


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The limits within which two boxes are partners, and how many boxes may lack one.

    Attributes:
        least_score: Boxes below need no partner. They are so close to the confidence asked for that
            either side may leave them out.
        least_iou: The smallest overlap of two partners.
        most_score_gap: The largest difference of their scores.
        most_missing: The largest share of boxes without a partner, 0 to 1.
    """

    least_score: float
    least_iou: float
    most_score_gap: float
    most_missing: float = 0.0


# For float32 on both sides, with arithmetic in another order.
EXACT: Final = Tolerance(least_score=0.35, least_iou=0.95, most_score_gap=0.02)
# For fewer bits on one side. Scores change by up to 0.06, and sometimes the other one of two
# overlapping boxes survives.
REDUCED: Final = Tolerance(least_score=0.4, least_iou=0.8, most_score_gap=0.1, most_missing=0.03)
FLOAT32: Final = ("f32", "fp32", "float32")


def tolerance_of(precision: str | None) -> Tolerance:
    """The tolerance for an engine of a precision; None is taken for float32."""
    return EXACT if precision is None or precision in FLOAT32 else REDUCED


@dataclass(frozen=True, slots=True)
class Box:
    """One detection; the box is x1, y1, x2, y2 in image pixels."""

    class_id: int
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the boxes of two servers agree.

    Attributes:
        tolerance: The tolerance that was applied.
        compared: How many boxes need a partner.
        least_iou: The smallest overlap of two partners; 1 if there are none.
        most_score_gap: The largest difference of two partners' scores.
        differences: A line for each box without a partner.
    """

    tolerance: Tolerance

    compared: int
    least_iou: float
    most_score_gap: float
    differences: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether no more boxes lack a partner than may."""
        return len(self.differences) <= self.tolerance.most_missing * self.compared


def read_answer(body: bytes) -> list[Box]:
    """The detections of one image, in our form or in that of official.py.

    Raises:
        ModelExportError: It is neither.
    """
    try:
        content = json.loads(body)
        if "results" in content:
            return [_our_box(item) for item in content["results"][0]["detections"]]
        return [
            Box(int(item["class_id"]), float(item["score"]), _corners(item["box"]))
            for item in content["detections"]
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise ModelExportError(f"this is no answer of a detector: {body[:200]!r}") from error


def compare(
    reference: Mapping[str, Sequence[Box]],
    other: Mapping[str, Sequence[Box]],
    tolerance: Tolerance = EXACT,
) -> Agreement:
    """Look for a partner of every clear box of either side on the other.

    Args:
        reference: The boxes that one server finds in each photo.
        other: The boxes that another finds in the same photos, at least.
        tolerance: The limits for a partner, besides the same class.
    """
    ious, gaps, differences = [1.0], [0.0], []
    compared = 0
    for photo, boxes in reference.items():
        for one, others, who in ((boxes, other[photo], "only there"), (other[photo], boxes, "new")):
            for box in (box for box in one if box.score > tolerance.least_score):
                compared += 1
                overlap, gap = _nearest(box, others)
                if overlap < tolerance.least_iou or gap > tolerance.most_score_gap:
                    differences.append(f"{photo}: {who}: {box}")
                else:
                    ious.append(overlap)
                    gaps.append(gap)
    return Agreement(tolerance, compared, min(ious), max(gaps), tuple(differences))


def average_precision(
    coco: CocoSet, class_names: Sequence[str], found: Mapping[int, Sequence[Box]]
) -> float:
    """COCO's AP of the boxes in some answers, by image id.

    Raises:
        ModelExportError: No class of the model is among the annotations' categories.
    """
    ids = {name: category for category, name in coco.categories.items()}
    if not ids.keys() & set(class_names):
        raise ModelExportError("the annotations know none of the model's classes")
    results = [
        _coco_result(image, ids[class_names[box.class_id]], box)
        for image, boxes in found.items()
        for box in boxes
        if class_names[box.class_id] in ids
    ]
    return measure(coco, results).overall["AP"] or 0.0


def _nearest(box: Box, others: Sequence[Box]) -> tuple[float, float]:
    """Overlap with the nearest box of the same class, and the difference of the two scores."""
    rivals = [other for other in others if other.class_id == box.class_id]
    if not rivals:
        return 0.0, 1.0
    corners = np.array([other.box_xyxy for other in rivals], np.float32)
    overlaps = iou_with(np.array(box.box_xyxy, np.float32), corners)
    best = int(overlaps.argmax())
    return float(overlaps[best]), abs(rivals[best].score - box.score)


def _our_box(item: Mapping[str, object]) -> Box:
    box = item["box"]
    if not isinstance(box, dict):
        raise TypeError("a box is an object")
    corners = _corners([box[side] for side in ("x1", "y1", "x2", "y2")])
    return Box(int(str(item["class_id"])), float(str(item["score"])), corners)


def _corners(values: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2


def _coco_result(image: int, category: int, box: Box) -> CocoResult:
    x1, y1, x2, y2 = box.box_xyxy
    return CocoResult(
        image_id=image, category_id=category, bbox=[x1, y1, x2 - x1, y2 - y1], score=box.score
    )
