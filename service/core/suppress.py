"""Overlap suppression: soft-NMS in three forms, hard NMS, or none, in one loop."""

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.core.contract import NmsMethod, Recommended, ScoreBy
from service.core.decode import Detections

Floats = NDArray[np.float32]

# A score that hard NMS set to zero is gone, even where the threshold is zero.
LEAST_SCORE: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """How raw rows become detections; the defaults follow the article.

    Attributes:
        confidence: Least confidence of a candidate, and least decayed score of a detection.
        score_by: What confidence is: objectness alone, or joint with the class probability.
        nms: The suppression method.
        iou: Overlap above which `soft-mean`, `soft-linear` and `hard` act.
        sigma: Width of the Gaussian of `soft-gaussian`.
        class_agnostic: Whether boxes of different classes compete.
        max_candidates: How many boxes enter suppression at most, the most confident.
        max_detections: How many leave it at most.
        class_ids: Classes to look for; None means all.
    """

    confidence: float = 0.5
    score_by: ScoreBy = "objectness"
    nms: NmsMethod = "soft-mean"
    iou: float = 0.45
    sigma: float = 0.5
    class_agnostic: bool = True
    max_candidates: int = 1000
    max_detections: int = 300
    class_ids: frozenset[int] | None = None


def suppress(candidates: Detections, options: DetectionOptions) -> Detections:
    """Prune overlapping boxes.

    Take the best remaining box, keep it with its current score, decay the scores of the others by
    their overlap with it, drop those that fall below `options.confidence`, repeat. Soft-NMS is
    arXiv:1704.04503; `soft-mean` is its Gaussian with the mean of the remaining scores for sigma,
    and only above the overlap threshold. Without `class_agnostic`, each class is a world of its
    own: neither overlaps nor that mean cross from one to another.

    Args:
        candidates: Boxes in any one frame, most confident first.
        options: Method, thresholds and limits.

    Returns:
        The kept detections with their decayed scores, best first.
    """
    boxes, scores = candidates.boxes_xyxy, candidates.scores.copy()
    remaining = np.arange(len(candidates))
    kept: list[int] = []
    while remaining.size and len(kept) < options.max_detections:
        position = int(scores[remaining].argmax())
        best = int(remaining[position])
        kept.append(best)
        remaining = np.delete(remaining, position)
        rivals = remaining
        if not options.class_agnostic:
            rivals = remaining[candidates.class_ids[remaining] == candidates.class_ids[best]]
        if rivals.size:
            overlaps = iou_with(boxes[best], boxes[rivals])
            scores[rivals] = decay(scores[rivals], overlaps, options)
            remaining = remaining[scores[remaining] >= max(options.confidence, LEAST_SCORE)]
    order = np.array(kept, dtype=np.intp)
    return Detections(
        boxes[order], scores[order], candidates.objectness[order], candidates.class_ids[order]
    )


def decay(scores: Floats, overlaps: Floats, options: DetectionOptions) -> Floats:
    """The scores (K,) of the remaining boxes after their overlap (K,) with the one just kept."""
    match options.nms:
        case "soft-mean":
            weights = np.exp(-(overlaps**2) / max(scores.mean(), LEAST_SCORE))
        case "soft-gaussian":
            decayed: Floats = scores * np.exp(-(overlaps**2) / np.float32(options.sigma))
            return decayed
        case "soft-linear":
            weights = 1 - overlaps
        case "hard":
            weights = np.zeros_like(scores)
        case "none":
            return scores
    return np.where(overlaps > options.iou, scores * weights, scores).astype(np.float32, copy=False)


def iou_with(box_xyxy: Floats, boxes_xyxy: Floats) -> Floats:
    """Intersection over union of one box (4,) with each of (K, 4), as (K,) float32."""
    top_left = np.maximum(box_xyxy[:2], boxes_xyxy[:, :2])
    bottom_right = np.minimum(box_xyxy[2:], boxes_xyxy[:, 2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
    area = np.prod(box_xyxy[2:] - box_xyxy[:2])
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    union = area + areas - intersection
    overlap: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlap


def with_recommended(options: DetectionOptions, recommended: Recommended) -> DetectionOptions:
    """The options with a model's recommendations in place of the defaults it names."""
    advice = dataclasses.asdict(recommended)
    return dataclasses.replace(options, **{k: v for k, v in advice.items() if v is not None})
