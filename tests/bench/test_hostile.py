"""The benchmark of hostile images: its rows are as bad as it says."""

from dataclasses import replace

import pytest

from service.core.suppress import DetectionOptions
from support.scripts import benchmark

hostile = benchmark("hostile")


@pytest.mark.parametrize("boxes", ["spread", "heaped"])
def test_every_row_is_a_candidate(boxes: str) -> None:
    rows = hostile.hostile_rows(416, boxes)
    assert len(rows) == 3549
    usual = DetectionOptions(0.0, nms="none")
    opened = replace(usual, max_candidates=len(rows), max_detections=len(rows))
    # Boxes in the corners may lie outside of the image as a whole.
    assert len(hostile.finding(rows, 416, opened)()) > 0.95 * len(rows)
    assert 0.9 * usual.max_detections < len(hostile.finding(rows, 416, usual)()) <= 300
