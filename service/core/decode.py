"""Decode raw network rows into boxes and scores."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.core.contract import BoxCoding, ModelContract, ScoreActivation, ScoreBy

Floats = NDArray[np.float32]

# e^10 strides is 176,000 pixels at stride 8: wider than any image, and finite in float32.
MAX_LOG_SIZE: Final = 10.0
MAX_OFFSET: Final = 1e5


@dataclass(frozen=True, slots=True)
class AnchorGrid:
    """The grid cells that the A raw rows belong to, for one input size.

    Attributes:
        cells_ij: (A, 2) float32, column and row of each cell in its level.
        strides: (A,) float32, pixels per cell.
    """

    cells_ij: Floats
    strides: Floats

    def take(self, cells: NDArray[np.int64]) -> "AnchorGrid":
        """The chosen cells, in the order given."""
        return AnchorGrid(self.cells_ij[cells], self.strides[cells])


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes with their scores; suppression orders them best first.

    Attributes:
        boxes_xyxy: (K, 4) float32; the function that returns them states the coordinate frame.
        scores: (K,) float32, the confidence, decayed by suppression.
        objectness: (K,) float32, the probability that the box holds an object of any class.
        class_ids: (K,) int64, the most probable class.
        class_scores: (K,) float32, the probability of that class, given that there is an object.
    """

    boxes_xyxy: Floats
    scores: Floats
    objectness: Floats
    class_ids: NDArray[np.int64]
    class_scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Detections":
        """The chosen rows, in the order given."""
        return Detections(
            self.boxes_xyxy[rows],
            self.scores[rows],
            self.objectness[rows],
            self.class_ids[rows],
            self.class_scores[rows],
        )


@lru_cache(maxsize=256)
def anchor_grid(height: int, width: int, strides: tuple[int, ...]) -> AnchorGrid:
    """The grid of an input of this size in pixels: levels as given, cells row by row.

    The arrays are shared between callers and therefore read-only.
    """
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.indices((height // stride, width // stride), dtype=np.float32)
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        steps.append(np.full(rows.size, stride, dtype=np.float32))
    grid = AnchorGrid(np.concatenate(cells), np.concatenate(steps))
    grid.cells_ij.setflags(write=False)
    grid.strides.setflags(write=False)
    return grid


def decode_boxes(raw_boxes: Floats, cells_ij: Floats, strides: Floats, coding: BoxCoding) -> Floats:
    """Turn raw box values into corners.

    Args:
        raw_boxes: (K, 4) float32, the four raw values of each row.
        cells_ij: (K, 2) float32, the cell of each row.
        strides: (K,) float32, the stride of each row.
        coding: `yolox`, the release's: the centre's offset from the cell's corner, in strides, and
            the logarithm of the size in strides. `anchor_point`, the article's: the top-left
            corner's offset from the cell's centre, in pixels, and the same logarithm.

    Returns:
        (K, 4) float32, x1, y1, x2, y2 in network pixels; finite for any finite or infinite input.
    """
    step = strides[:, None]
    offsets = np.clip(raw_boxes[:, :2], -MAX_OFFSET, MAX_OFFSET)
    sizes = step * np.exp(np.minimum(raw_boxes[:, 2:], MAX_LOG_SIZE))
    if coding == "yolox":
        top_left = (offsets + cells_ij) * step - sizes / 2
    else:
        top_left = offsets + (cells_ij + 0.5) * step
    return np.concatenate([top_left, top_left + sizes], axis=1)


def raw_threshold(contract: ModelContract, confidence: float) -> float:
    """The objectness, as the network gives it, below which no row has this confidence."""
    if contract.score_activation == "probabilities":
        return confidence
    if not 0 < confidence < 1:
        return -math.inf if confidence <= 0 else math.inf
    return math.log(confidence) - math.log1p(-confidence)


def decode_candidates(
    raw: NDArray[np.floating],
    grid: AnchorGrid,
    contract: ModelContract,
    *,
    confidence: float,
    score_by: ScoreBy,
    max_candidates: int,
    class_ids: frozenset[int] | None = None,
) -> Detections:
    """Keep the rows that are confident enough, then decode only those.

    The first cut compares objectness as the network gives it, logit or probability, so that only
    the survivors need an exponential. Objectness is an upper bound of the joint score, so the cut
    is right for both scores.

    Args:
        raw: (A, 4 + 1 + C) network output of one image; rows that fail the first cut may be left
            out.
        grid: The cells of these rows.
        contract: The model's box coding, score activation and class names.
        confidence: Minimum confidence to keep, 0 to 1.
        score_by: Meaning of confidence: objectness alone, or objectness times the class
            probability.
        max_candidates: Maximum number of candidates; the most confident are kept.
        class_ids: Classes to keep; None keeps all.

    Returns:
        Candidates, most confident first, boxes in network pixels.
    """
    activation = contract.score_activation
    rows = np.flatnonzero(raw[:, 4] >= raw_threshold(contract, confidence))
    survivors = raw[rows].astype(np.float32, copy=False)
    classes = survivors[:, 5:].argmax(axis=1)
    objectness = _probability(survivors[:, 4], activation)
    class_scores = _probability(survivors[np.arange(len(rows)), 5 + classes], activation)
    scores = objectness * class_scores if score_by == "joint" else objectness
    # NaN fails every comparison, so a broken row never gets through.
    keep = (scores >= confidence) & ~np.isnan(survivors[:, :4]).any(axis=1)
    if class_ids is not None:
        keep &= np.isin(classes, list(class_ids))
    kept = np.flatnonzero(keep)
    best = kept[np.argsort(-scores[kept], kind="stable")[:max_candidates]]
    cells = rows[best]
    boxes = decode_boxes(
        survivors[best, :4], grid.cells_ij[cells], grid.strides[cells], contract.box_coding
    )
    return Detections(boxes, scores[best], objectness[best], classes[best], class_scores[best])


def _probability(values: Floats, activation: ScoreActivation) -> Floats:
    if activation == "probabilities":
        return values
    return np.exp(-np.logaddexp(np.float32(0), -values))
