"""Boxes are drawn where they are."""

import numpy as np

from model_export.report.sheets import with_boxes
from model_export.samples.geometry import Picture, blank


def test_a_box_of_less_than_a_pixel_can_be_drawn() -> None:
    boxes = np.array([[10, 40, 10.4, 40.3]], np.float32)
    image = with_boxes(Picture(blank(100, 100), boxes, np.array([0])), [""])
    assert (image[40, 10] != 114).any()


def test_boxes_are_drawn_on_their_outermost_pixels() -> None:
    boxes = np.array([[10, 40, 60, 90]], np.float32)
    image = with_boxes(Picture(blank(100, 100), boxes, np.array([0])), ["a name in no latin: 猫"])
    changed = (image != 114).any(axis=2)
    assert changed[89, 10:60].all()
    assert changed[40:90, 59].all()
    assert not changed[90:].any()
    assert not changed[91, 60:].any()
    assert not changed[:40].any()
