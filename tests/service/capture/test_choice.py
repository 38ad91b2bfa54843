"""Which images are captured, and how many."""

import numpy as np
import pytest

from service.capture.choice import BURST, LEAST_BOXES, Allowance, Chooser, is_uncertain
from service.core.decode import Detections

NAMES = ("cat", "dog")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def found(scores: list[float], class_id: int = 0) -> Detections:
    count = len(scores)
    values = np.array(scores, np.float32)
    boxes = np.tile(np.array([0, 0, 8, 8], np.float32), (count, 1))
    return Detections(boxes, values, values, np.full(count, class_id, np.int64), values)


def test_an_allowance_refills_with_time_and_never_above_its_burst() -> None:
    clock = Clock()
    allowance = Allowance(60, clock)
    assert [allowance.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now = 59
    assert not allowance.take()
    clock.now = 61
    assert allowance.take()
    assert not allowance.take()
    clock.now = 1e6
    assert sum(allowance.take() for _ in range(20)) == BURST


@pytest.mark.parametrize(
    ("scores", "is_unsure"), [([0.9, 0.41], True), ([0.9, 0.7], False), ([], False)]
)
def test_a_score_just_above_the_threshold_is_uncertain(
    scores: list[float], is_unsure: bool
) -> None:
    assert is_uncertain(found(scores), 0.4) is is_unsure


def test_images_have_their_reasons() -> None:
    chooser = Chooser(400, share=0.0, clock=Clock())
    assert chooser.reason(found([0.9]), NAMES, 0.4) is None
    assert chooser.reason(found([0.45]), NAMES, 0.4) == "uncertain"
    assert chooser.disagreement() == "disagreement"
    chooser.reason(found([0.9] * LEAST_BOXES), NAMES, 0.4)
    assert chooser.reason(found([0.9], class_id=1), NAMES, 0.4) == "rare"
    assert chooser.reason(found([0.9]), NAMES, 0.4) is None
    assert Chooser(400, share=1.0).reason(found([]), NAMES, 0.4) == "sample"


def test_one_reason_does_not_use_up_the_allowance_of_another() -> None:
    chooser = Chooser(4, share=1.0, clock=Clock())
    reasons = [chooser.reason(found([0.45]), NAMES, 0.4) for _ in range(12)]
    assert reasons == ["uncertain"] * 5 + ["sample"] * 5 + [None] * 2
    assert chooser.disagreement() == "disagreement"
