"""Overlap suppression: soft-NMS in three forms, hard NMS, or none, in one loop."""

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from service.core.contract import NmsMethod, Recommended, ScoreBy
from service.core.decode import Detections

Floats = NDArray[np.float32]
Preset = Literal["article", "yolox"]

# Hard NMS sets scores to zero; such a box is dropped even if the threshold is zero.
MIN_SCORE: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class DetectionOptions:
    """Options for turning raw rows into detections; the defaults follow the article.

    Attributes:
        confidence: Minimum confidence of a candidate, and minimum decayed score of a detection.
        score_by: Meaning of confidence: objectness alone, or objectness times the class
            probability.
        nms: The suppression method.
        iou: Overlap above which `soft-mean`, `soft-linear` and `hard` act.
        sigma: Width of the Gaussian of `soft-gaussian`.
        class_agnostic: Whether boxes of different classes compete.
        max_candidates: Maximum number of boxes that enter suppression; the most confident do.
        max_detections: Maximum number of boxes that leave it.
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


# The whole choice of each, so that no other default shines through. YOLOX's is that of its demo,
# tools/demo.py, which suppresses across classes.
PRESETS: Final = MappingProxyType(
    {
        "article": Recommended(
            confidence=0.5,
            score_by="objectness",
            nms="soft-mean",
            iou=0.45,
            sigma=0.5,
            class_agnostic=True,
        ),
        "yolox": Recommended(
            confidence=0.3, score_by="joint", nms="hard", iou=0.45, class_agnostic=True
        ),
    }
)


def suppress(candidates: Detections, options: DetectionOptions) -> Detections:
    """Prune overlapping boxes.

    Take the best remaining box, keep it with its current score, decay the scores of the others by
    their overlap with it, drop those that fall below `options.confidence`, and repeat. Soft-NMS is
    arXiv:1704.04503. `soft-mean` is its Gaussian form with the mean of the remaining scores as
    sigma, applied only above the overlap threshold. Without `class_agnostic`, each class is
    suppressed on its own: neither the overlaps nor the mean involve other classes.

    Args:
        candidates: Boxes in any one frame, most confident first.
        options: Method, thresholds and limits.

    Returns:
        The kept detections with their decayed scores, best first.
    """
    edges = BoxEdges.of(candidates.boxes_xyxy)
    scores, class_ids = candidates.scores.copy(), candidates.class_ids
    waiting = np.ones(scores.shape, dtype=np.bool_)
    kept: list[int] = []
    while waiting.any() and len(kept) < options.max_detections:
        best = int(np.where(waiting, scores, -np.inf).argmax())
        kept.append(best)
        waiting[best] = False
        rivals = waiting
        if not options.class_agnostic:
            rivals = waiting & (class_ids == class_ids[best])
        if rivals.any():
            overlaps = edges.iou_with(candidates.boxes_xyxy[best])
            scores[rivals] = decay(scores[rivals], overlaps[rivals], options)
            waiting &= scores >= max(options.confidence, MIN_SCORE)
    order = np.array(kept, dtype=np.intp)
    return Detections(
        candidates.boxes_xyxy[order],
        scores[order],
        candidates.objectness[order],
        class_ids[order],
        candidates.class_scores[order],
    )


def decay(scores: Floats, overlaps: Floats, options: DetectionOptions) -> Floats:
    """The scores (K,) of the remaining boxes after their overlap (K,) with the one just kept."""
    match options.nms:
        case "soft-mean":
            weights = np.exp(-(overlaps**2) / max(scores.mean(), MIN_SCORE))
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


@dataclass(frozen=True, slots=True)
class BoxEdges:
    """The coordinates of K boxes as (K,) float32 arrays, for fast comparison with single boxes."""

    x1: Floats
    y1: Floats
    x2: Floats
    y2: Floats
    areas: Floats

    @classmethod
    def of(cls, boxes_xyxy: Floats) -> Self:
        """The edges of (K, 4) float32 boxes."""
        x1, y1, x2, y2 = np.ascontiguousarray(boxes_xyxy.T)
        return cls(x1, y1, x2, y2, (x2 - x1) * (y2 - y1))

    def iou_with(self, box_xyxy: Floats) -> Floats:
        """Intersection over union of one box (4,) with each of these, as (K,) float32."""
        x1, y1, x2, y2 = box_xyxy
        width = np.minimum(self.x2, x2) - np.maximum(self.x1, x1)
        height = np.minimum(self.y2, y2) - np.maximum(self.y1, y1)
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        union = (x2 - x1) * (y2 - y1) + self.areas - intersection
        overlap: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
        return overlap


def iou_with(box_xyxy: Floats, boxes_xyxy: Floats) -> Floats:
    """Intersection over union of one box (4,) with each of (K, 4), as (K,) float32."""
    return BoxEdges.of(boxes_xyxy).iou_with(box_xyxy)


def with_recommended(options: DetectionOptions, recommended: Recommended) -> DetectionOptions:
    """The options, replaced by the model's recommendations where it has any."""
    advice = dataclasses.asdict(recommended)
    return dataclasses.replace(options, **{k: v for k, v in advice.items() if v is not None})
