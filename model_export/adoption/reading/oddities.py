"""Tell by the values of rows that they are another detector's, or that their scores are lost."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from model_export.adoption.reading.rows import (
    FORMS,
    RowReading,
    forms_of,
    grid_distance,
    hold_scores,
    orders_of,
)
from model_export.adoption.reading.tables import Arrangement, Floats

# How far from 1 the classes of a row may add up after a softmax in float16.
NEAR_ONE: Final = 0.01
# Objectness of most cells is below this, as most show no object.
BACKGROUND: Final = 0.05
# The sigmoid of 0 and of 1, with some room for float16.
TWICE: Final = (0.4995, 0.7315)
ALIKE: Final = 0.05

Size = tuple[int, int]


def _have_softmax(reading: RowReading, tables: Sequence[Floats], _: Size) -> bool:
    """Whether the classes of every row are shares of 1."""
    stacked = np.stack(tables)
    classes = stacked[:, :, reading.columns("classes")]
    shares = reading.num_classes > 1 and bool((classes >= 0).all())
    return shares and np.allclose(classes.sum(axis=2), 1, atol=NEAR_ONE)


def _have_products(reading: RowReading, tables: Sequence[Floats], _: Size) -> bool:
    """Whether the classes of every row are at most its objectness."""
    stacked = np.stack(tables)
    objectness = stacked[:, :, reading.columns("objectness")]
    classes = stacked[:, :, reading.columns("classes")]
    shares = bool((classes >= 0).all() and (objectness <= 1).all())
    # On background, YOLOX's objectness is next to nothing, and one of several classes is not.
    tells = reading.num_classes > 1 and float(np.median(objectness)) < BACKGROUND
    return shares and tells and bool((classes <= objectness * (1 + NEAR_ONE)).all())


def _have_two_sigmoids(reading: RowReading, tables: Sequence[Floats], _: Size) -> bool:
    """Whether every score is one that a sigmoid gives for a number from 0 to 1."""
    scores = [
        table[:, reading.columns(block)] for table in tables for block in ("objectness", "classes")
    ]
    low, high = TWICE
    within = all(bool(((each >= low) & (each <= high)).all()) for each in scores)
    # Scores that are alike in all rows say nothing.
    return within and max(float(np.ptp(each, axis=0).max()) for each in scores) > ALIKE


# Tests of one reading of rows for several pictures, and what to say where any order passes.
FAULTS: Final = (
    (
        _have_softmax,
        (
            "the classes of each row add up to 1, as after a softmax, where YOLOX has a sigmoid "
            "for each class; export it with the sigmoid, or with logits"
        ),
    ),
    (
        _have_products,
        (
            "no class of any row exceeds its objectness, so the classes are multiplied by it "
            "already; export them as they are before that"
        ),
    ),
    (
        _have_two_sigmoids,
        (
            "every score is between 0.5 and 0.73, so they went through a sigmoid twice; export "
            "them with one sigmoid, or with logits"
        ),
    ),
)


def oddity(arrangement: Arrangement, tables: Sequence[Floats], size: Size) -> str | None:
    """How the values of rows betray another detector, or scores that are lost, or None.

    Args:
        arrangement: The outputs that hold the rows.
        tables: Its (A, 5 + C) rows for several pictures.
        size: (height, width) of the pictures in pixels.
    """
    readings = [RowReading(arrangement, order) for order in orders_of(arrangement)]
    stacked = np.stack(tables)
    if np.allclose(stacked[:, :, readings[0].columns("objectness")], 1, atol=1e-3):
        return "objectness is 1 in every row, as in YOLOv6"
    for has_fault, words in FAULTS:
        if any(has_fault(each, tables, size) for each in readings):
            return words
    forms = [form for reading in readings for form in forms_of(reading, FORMS)]
    if any(
        math.isfinite(grid_distance(each, tables, size))
        for each in forms
        if not hold_scores(each, tables)
    ):
        return None
    boxes = [stacked[:, :, each.columns("box")] for each in readings]
    if any((each >= 0).all() and each.max() > 1 for each in boxes):
        return (
            "its four box values are never negative and no centres, so they are distances to the "
            "sides, as in FCOS"
        )
    return None
