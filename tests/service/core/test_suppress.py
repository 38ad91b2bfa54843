import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.core.contract import NmsMethod, Recommended
from service.core.decode import Detections
from service.core.suppress import DetectionOptions, iou_with, suppress, with_recommended

METHODS: tuple[NmsMethod, ...] = ("soft-mean", "soft-gaussian", "soft-linear", "hard", "none")


def detections(
    boxes: list[list[float]], scores: list[float], class_ids: list[int] | None = None
) -> Detections:
    return Detections(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.array(scores, dtype=np.float32),
        np.array(class_ids or [0] * len(scores), dtype=np.int64),
        np.array(scores, dtype=np.float32),
    )


# Two boxes of width 10 and height 10, 2 apart: intersection 80, union 120, IoU 2/3.
# The third lies alone.
PAIR = [[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]]
IOU = 2 / 3


def test_iou_of_shifted_squares() -> None:
    first, *others = np.array([*PAIR, [10, 0, 20, 10]], dtype=np.float32)
    np.testing.assert_allclose(iou_with(first, np.array(others)), [IOU, 0, 0], rtol=1e-6)


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = np.zeros(4, dtype=np.float32)
    np.testing.assert_array_equal(iou_with(point, np.zeros((2, 4), dtype=np.float32)), [0, 0])


def test_soft_mean_worked_by_hand() -> None:
    """Best 0.9 stays; the mean of the remaining 0.8 and 0.6 is 0.7, so 0.8 decays by
    exp(-(2/3)^2 / 0.7) = 0.530 to 0.424, below 0.6, which is kept next, untouched by its IoU 0."""
    kept = suppress(detections(PAIR, [0.9, 0.8, 0.6]), DetectionOptions(confidence=0.3))
    np.testing.assert_allclose(kept.scores, [0.9, 0.6, 0.8 * math.exp(-(IOU**2) / 0.7)], rtol=1e-6)
    np.testing.assert_array_equal(kept.boxes_xyxy[1], PAIR[2])
    np.testing.assert_allclose(kept.objectness, [0.9, 0.6, 0.8])


def test_decayed_score_below_the_threshold_is_dropped() -> None:
    kept = suppress(detections(PAIR, [0.9, 0.8, 0.6]), DetectionOptions(confidence=0.5))
    np.testing.assert_allclose(kept.scores, [0.9, 0.6])


@pytest.mark.parametrize(
    ("method", "decayed"),
    [
        ("soft-mean", 0.8 * math.exp(-(IOU**2) / 0.7)),
        ("soft-gaussian", 0.8 * math.exp(-(IOU**2) / 0.5)),
        ("soft-linear", 0.8 * (1 - IOU)),
        ("hard", None),
        ("none", 0.8),
    ],
)
def test_each_method_decays_by_its_own_formula(method: NmsMethod, decayed: float | None) -> None:
    options = DetectionOptions(confidence=0.0, nms=method)
    kept = suppress(detections(PAIR, [0.9, 0.8, 0.6]), options)
    expected = sorted([0.9, 0.6, *([] if decayed is None else [decayed])], reverse=True)
    np.testing.assert_allclose(kept.scores, expected, rtol=1e-6)


USES_THRESHOLD = pytest.mark.parametrize("method", ["soft-mean", "soft-linear", "hard"])


@USES_THRESHOLD
def test_overlap_below_the_threshold_decays_nothing(method: NmsMethod) -> None:
    options = DetectionOptions(confidence=0.0, nms=method, iou=0.67)
    kept = suppress(detections(PAIR, [0.9, 0.8, 0.6]), options)
    np.testing.assert_allclose(kept.scores, [0.9, 0.8, 0.6])


# A box and its upper half: intersection 50, union 100. Their IoU is 0.5 exactly, in any precision.
HALVES = [[0, 0, 10, 10], [0, 0, 10, 5]]


@USES_THRESHOLD
def test_overlap_that_equals_the_threshold_decays_nothing(method: NmsMethod) -> None:
    boxes = detections(HALVES, [0.9, 0.8])
    equal = DetectionOptions(confidence=0.0, nms=method, iou=0.5)
    np.testing.assert_array_equal(suppress(boxes, equal).scores, boxes.scores)
    below = dataclasses.replace(equal, iou=float(np.nextafter(np.float32(0.5), np.float32(0))))
    assert not np.array_equal(suppress(boxes, below).scores, boxes.scores)


def test_classes_compete_only_when_agnostic() -> None:
    boxes = detections(PAIR, [0.9, 0.8, 0.6], [0, 1, 0])
    hard = DetectionOptions(nms="hard")
    assert len(suppress(boxes, hard)) == 2
    assert len(suppress(boxes, dataclasses.replace(hard, class_agnostic=False))) == 3


def test_with_classes_apart_the_mean_is_that_of_the_class() -> None:
    boxes = detections([*PAIR, [2, 0, 12, 10]], [0.9, 0.8, 0.6, 0.7], [0, 0, 1, 1])
    options = DetectionOptions(confidence=0.0, class_agnostic=False)
    kept = suppress(boxes, options)
    assert 0.8 * math.exp(-(IOU**2) / 0.8) in [pytest.approx(score) for score in kept.scores]


def test_no_more_than_max_detections_come_out() -> None:
    boxes = detections([[i * 20, 0, i * 20 + 10, 10] for i in range(9)], [0.9] * 9)
    assert len(suppress(boxes, DetectionOptions(max_detections=4))) == 4


@pytest.mark.parametrize("method", METHODS)
def test_nothing_in_gives_nothing_out(method: NmsMethod) -> None:
    kept = suppress(detections([], []), DetectionOptions(nms=method))
    assert len(kept) == 0
    assert kept.boxes_xyxy.shape == (0, 4)


def test_input_is_left_as_it_was() -> None:
    boxes = detections(PAIR, [0.9, 0.8, 0.6])
    suppress(boxes, DetectionOptions())
    np.testing.assert_allclose(boxes.scores, [0.9, 0.8, 0.6])


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def slow_suppress(
    boxes: list[list[float]], scores: list[float], options: DetectionOptions
) -> list[float]:
    """Soft-NMS one scalar at a time, as its paper puts it."""
    remaining = list(zip(boxes, scores, strict=True))
    kept: list[float] = []
    while remaining:
        best = max(range(len(remaining)), key=lambda i: remaining[i][1])
        box, score = remaining.pop(best)
        kept.append(score)
        mean = sum(s for _, s in remaining) / max(1, len(remaining))
        decayed = []
        for other, s in remaining:
            o = overlap(box, other)
            factor = {
                "soft-mean": math.exp(-o * o / mean) if o > options.iou else 1,
                "soft-gaussian": math.exp(-o * o / options.sigma),
                "soft-linear": 1 - o if o > options.iou else 1,
                "hard": 0 if o > options.iou else 1,
                "none": 1,
            }[options.nms]
            if s * factor >= options.confidence:
                decayed.append((other, s * factor))
        remaining = decayed
    return kept


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[list[float]], list[float]]:
    count = draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corners: NDArray[np.float64] = rng.integers(0, 25, (count, 2)).astype(float)
    sizes = rng.integers(5, 30, (count, 2))
    scores = np.sort(rng.permutation(999)[:count] / 1000 + 0.001)[::-1]
    return np.hstack([corners, corners + sizes]).tolist(), scores.tolist()


@given(crowds(), st.sampled_from(METHODS), st.sampled_from([0.05, 0.3]))
def test_vectorised_loop_agrees_with_the_slow_one(
    crowd: tuple[list[list[float]], list[float]], method: NmsMethod, confidence: float
) -> None:
    boxes, scores = crowd
    options = DetectionOptions(confidence=confidence, nms=method)
    scores = [score for score in scores if score >= confidence]
    boxes = boxes[: len(scores)]
    kept = suppress(detections(boxes, scores), options)
    np.testing.assert_allclose(kept.scores, slow_suppress(boxes, scores, options), rtol=1e-3)


def test_recommendations_replace_only_the_defaults_they_name() -> None:
    options = with_recommended(DetectionOptions(), Recommended(confidence=0.2, nms="hard"))
    assert options == DetectionOptions(confidence=0.2, nms="hard")
