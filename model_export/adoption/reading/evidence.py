"""Judge a reading by the objects that it finds on pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.adoption.reading.pictures import TrialPicture
from model_export.adoption.reading.rows import RowReading, grid_of
from model_export.adoption.reading.tables import Floats
from service.core.contract import ScoreActivation
from service.core.decode import AnchorGrid, Detections
from service.core.suppress import DetectionOptions, suppress

# Boxes that count: the thresholds by which public tools show YOLOX's boxes.
OPTIONS: Final = DetectionOptions(
    confidence=0.3, score_by="joint", nms="hard", iou=0.45, class_agnostic=True
)
# Rows below this objectness play no part.
MIN_OBJECTNESS: Final = 0.05
# Overlap by which two boxes are of one object.
SAME: Final = 0.5
# Overlap and difference of scores of two boxes that no usual threshold tells apart.
SAME_PLACE: Final = 0.9
SAME_SCORE: Final = 0.05
MAX_ROWS: Final = 3000


@dataclass(frozen=True, slots=True)
class Found:
    """The objects that one reading finds on one picture.

    Attributes:
        objects: The boxes after suppression, network pixels.
        sense: The sum of the scores of drawn objects that are found as what they are; on other
            pictures, of all boxes, those without a neighbour that agrees counting half.
    """

    objects: Detections
    sense: float


def probabilities(values: Floats, activation: ScoreActivation) -> Floats:
    """Scores of 0 to 1."""
    if activation == "probabilities":
        return values
    return np.exp(-np.logaddexp(np.float32(0), -values))


def largest_joint(reading: RowReading, table: Floats) -> float:
    """The largest product of objectness and class probability of any row."""
    objectness = probabilities(table[:, reading.columns("objectness")][:, 0], reading.objectness)
    best = table[:, reading.columns("classes")].max(axis=1)
    return float(np.max(objectness * probabilities(best, reading.classes)))


def find(
    reading: RowReading, table: Floats, picture: TrialPicture, *, expects_drawn: bool
) -> Found:
    """Read a table of rows, and judge the boxes.

    Args:
        reading: How to read it.
        table: (A, 5 + C), in the order of the outputs.
        picture: The picture that it is for.
        expects_drawn: Whether the model knows classes of drawn objects, so that other boxes on
            drawn pictures prove nothing.
    """
    size = (picture.image.shape[0], picture.image.shape[1])
    rows = _confident(reading, reading.in_order(table, size), size)
    objects = suppress(rows.best(), OPTIONS)
    if picture.photo is None and expects_drawn:
        return Found(objects, _drawn_sense(rows, picture))
    return Found(objects, _other_sense(rows, objects))


def shift_in_cells(reading: RowReading, table: Floats, picture: TrialPicture) -> Floats | None:
    """How far the boxes of drawn objects lie to the right of them and below, in cells.

    Args:
        reading: How to read the rows.
        table: (A, 5 + C), in the order of the outputs.
        picture: The picture that it is for.

    Returns:
        (2,) float32, the mean; None if fewer than two objects are found.
    """
    size = (picture.image.shape[0], picture.image.shape[1])
    rows = _confident(reading, reading.in_order(table, size), size)
    shifts = []
    for box, class_id in zip(picture.boxes_xyxy, picture.class_ids, strict=True):
        scores = rows.joint[:, class_id] * (overlaps(box[np.newaxis], rows.boxes_xyxy)[0] >= SAME)
        if scores.max(initial=0.0) >= OPTIONS.confidence:
            best = int(scores.argmax())
            away = (rows.boxes_xyxy[best] - box).reshape(2, 2).mean(axis=0)
            shifts.append(away / rows.strides[best])
    return np.mean(shifts, axis=0) if len(shifts) > 1 else None


@dataclass(frozen=True, slots=True)
class _Rows:
    """Confident rows whose boxes lie about their cells, best first.

    Attributes:
        boxes_xyxy: (K, 4) float32, network pixels.
        joint: (K, C) float32: objectness times the probability of each class.
        objectness: (K,) float32.
        cells_ij: (K, 2) float32.
        strides: (K,) float32.
    """

    boxes_xyxy: Floats
    joint: Floats
    objectness: Floats
    cells_ij: Floats
    strides: Floats

    def best(self) -> Detections:
        """Each row's best class, with the scores that count, best first."""
        scores, classes = self.joint.max(axis=1), self.joint.argmax(axis=1)
        kept = np.flatnonzero(scores >= OPTIONS.confidence)
        order = kept[np.argsort(-scores[kept], kind="stable")[: OPTIONS.max_candidates]]
        class_scores = scores / np.maximum(self.objectness, np.finfo(np.float32).tiny)
        found = Detections(self.boxes_xyxy, scores, self.objectness, classes, class_scores)
        return found.take(order)


def _confident(reading: RowReading, table: Floats, size: tuple[int, int]) -> _Rows:
    grid = grid_of(reading, size)
    objectness = probabilities(table[:, reading.columns("objectness")][:, 0], reading.objectness)
    chosen = np.flatnonzero(objectness >= MIN_OBJECTNESS)
    chosen = chosen[np.argsort(-objectness[chosen], kind="stable")[:MAX_ROWS]]
    cells = grid.take(chosen)
    classes = probabilities(table[chosen][:, reading.columns("classes")], reading.classes)
    with np.errstate(all="ignore"):
        boxes = reading.boxes_xyxy(table[chosen][:, reading.columns("box")], cells, size)
    kept = _about_cells(reading, boxes, cells)
    joint = objectness[chosen][:, np.newaxis] * classes
    return _Rows(
        boxes[kept],
        joint[kept],
        objectness[chosen][kept],
        cells.cells_ij[kept],
        cells.strides[kept],
    )


def _about_cells(reading: RowReading, boxes: Floats, cells: AnchorGrid) -> NDArray[np.intp]:
    """The rows whose box is a box, with its centre near their cell."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    away = np.abs(centers / cells.strides[:, np.newaxis] - cells.cells_ij - 0.5)
    sides = boxes[:, 2:] - boxes[:, :2]
    near = (away < reading.reach).all(axis=1)
    return np.flatnonzero(np.isfinite(boxes).all(axis=1) & near & (sides > 0).all(axis=1))


def _drawn_sense(rows: _Rows, picture: TrialPicture) -> float:
    """The sum of the best scores, of the right class, of boxes where drawn objects are."""
    sense = 0.0
    for box, class_id in zip(picture.boxes_xyxy, picture.class_ids, strict=True):
        there = overlaps(box[np.newaxis], rows.boxes_xyxy)[0] >= SAME
        sense += float(rows.joint[there, class_id].max(initial=0.0))
    return sense


def _other_sense(rows: _Rows, objects: Detections) -> float:
    """The sum of the boxes' scores; half of those that no neighbouring cell agrees with."""
    alike = overlaps(objects.boxes_xyxy, rows.boxes_xyxy) >= SAME
    sense = 0.0
    for number, score in enumerate(objects.scores.tolist()):
        same = np.flatnonzero(alike[number])
        pairs = np.abs(rows.cells_ij[same, np.newaxis] - rows.cells_ij[np.newaxis, same])
        beside = (pairs.max(axis=2) == 1) & (rows.strides[same, None] == rows.strides[None, same])
        sense += score * (1.0 if beside.any() else 0.5)
    return sense


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """(K, L) float32: intersection over union of (K, 4) and (L, 4) corners."""
    low = np.maximum(boxes[:, np.newaxis, :2], others[np.newaxis, :, :2])
    high = np.minimum(boxes[:, np.newaxis, 2:], others[np.newaxis, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    union = areas[0][:, np.newaxis] + areas[1][np.newaxis] - shared
    result: Floats = shared / np.maximum(union, 1e-9)
    return result


def agree(first: Sequence[Detections], second: Sequence[Detections]) -> bool:
    """Whether two readings find the same boxes, of the same classes, on all pictures.

    Scores may differ by a twentieth, which no threshold of the usual ones notices.
    """
    return all(_alike(*pair) for pair in zip(first, second, strict=True))


def difference(
    found: Sequence[Detections], expected: Sequence[Detections]
) -> tuple[int, int, float]:
    """How the boxes of two readings differ.

    Returns:
        How many of the expected boxes are found, how many are expected, and the largest difference
        of the scores of those found.
    """
    kept, apart = 0, 0.0
    for some, others in zip(found, expected, strict=True):
        if not len(some) or not len(others):
            continue
        same = overlaps(others.boxes_xyxy, some.boxes_xyxy) >= SAME
        same &= others.class_ids[:, None] == some.class_ids[None]
        away = np.where(same, np.abs(others.scores[:, None] - some.scores[None]), np.inf)
        nearest = away.min(axis=1)
        kept += int(np.isfinite(nearest).sum())
        apart = max(apart, float(nearest[np.isfinite(nearest)].max(initial=0.0)))
    return kept, sum(map(len, expected)), apart


def holds(found: Detections, expected: Detections) -> bool:
    """Whether every expected box is found: the same place, class and score."""
    if not len(expected):
        return True
    if not len(found):
        return False
    alike = overlaps(expected.boxes_xyxy, found.boxes_xyxy) >= SAME_PLACE
    alike &= expected.class_ids[:, None] == found.class_ids[None]
    alike &= np.abs(expected.scores[:, None] - found.scores[None]) <= SAME_SCORE
    return bool(alike.any(axis=1).all())


def _alike(first: Detections, second: Detections) -> bool:
    return len(first) == len(second) and holds(first, second) and holds(second, first)
