"""Whether two servers find the same: their answers read, compared, and held to annotations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.errors import ModelExportError
from model_export.measure.coco import CocoResult, CocoSet, measure
from service.core.suppress import iou_with

# A box this close to the confidence asked for may fall on either side of it.
LEAST_SCORE: Final = 0.35
LEAST_IOU: Final = 0.95
MOST_SCORE_GAP: Final = 0.02


@dataclass(frozen=True, slots=True)
class Box:
    """One detection; the box is x1, y1, x2, y2 in image pixels."""

    class_id: int
    score: float
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a server's boxes compare with those of another.

    Attributes:
        compared: How many boxes had to have a partner.
        least_iou: The smallest overlap of two partners; 1 without any.
        most_score_gap: The largest difference of their scores.
        differences: A line for each box without a partner.
    """

    compared: int
    least_iou: float
    most_score_gap: float
    differences: tuple[str, ...]


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
    reference: Mapping[str, Sequence[Box]], other: Mapping[str, Sequence[Box]]
) -> Agreement:
    """Look for a partner of every clear box, both ways.

    Args:
        reference: Photo to its boxes by one server.
        other: The same photos by another.

    Returns:
        The agreement; partners have one class, an IoU of `LEAST_IOU` and scores that differ by
        at most `MOST_SCORE_GAP`.
    """
    ious, gaps, differences = [1.0], [0.0], []
    compared = 0
    for photo, boxes in reference.items():
        for one, others, who in ((boxes, other[photo], "only there"), (other[photo], boxes, "new")):
            for box in (box for box in one if box.score > LEAST_SCORE):
                compared += 1
                overlap, gap = _nearest(box, others)
                if overlap < LEAST_IOU or gap > MOST_SCORE_GAP:
                    differences.append(f"{photo}: {who}: {box}")
                else:
                    ious.append(overlap)
                    gaps.append(gap)
    return Agreement(compared, min(ious), max(gaps), tuple(differences))


def average_precision(
    coco: CocoSet, class_names: Sequence[str], found: Mapping[int, Sequence[Box]]
) -> float:
    """COCO's AP of boxes by image id; of those that were confident enough to be answered.

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
    """Overlap with the nearest box of its class, and the difference of their scores."""
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
