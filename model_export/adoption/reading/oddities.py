"""Tell by the values of rows that they are another detector's, or that a step is missing."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from model_export.adoption.reading.rows import (
    FORMS,
    MAX_CELLS_AWAY,
    MOST,
    RowReading,
    follows,
    forms_of,
    grid_distance,
    grid_of,
    hold_scores,
    orders_of,
)
from model_export.adoption.reading.tables import Arrangement, Floats

# How far from 1 the classes of a row may add up after a softmax in float16.
NEAR_ONE: Final = 0.01
# Objectness of most cells is below this, as most show no object.
BACKGROUND: Final = 0.05
# Share of negative numbers from which on they are no accident.
SOME: Final = 0.02

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


def _lack_exponential(reading: RowReading, tables: Sequence[Floats], size: Size) -> bool:
    """Whether centres lie at their cells, so that boxes are decoded, but sides may be negative."""
    grid = grid_of(reading, size)
    cells = (grid.cells_ij + 0.5) * grid.strides[:, np.newaxis]
    boxes = [reading.in_order(table, size)[:, reading.columns("box")] for table in tables]
    # Corners may be negative, but follow the cells.
    if not follows(reading, tables[0], size) or follows(reading, tables[0], size, first=2):
        return False
    units = (1.0, grid.strides[:, np.newaxis], np.array([size[1], size[0]], np.float32))
    for unit in units:
        away = [(np.abs(each[:, :2] * unit - cells) / grid.strides[:, None]) for each in boxes]
        at_cells = all(np.mean((each < MAX_CELLS_AWAY).all(axis=1)) > MOST for each in away)
        negative = all(np.mean((each[:, 2:] < 0).any(axis=1)) > SOME for each in boxes)
        if at_cells and negative:
            return True
    return False


def _lack_grid(reading: RowReading, tables: Sequence[Floats], size: Size) -> bool:
    """Whether boxes have sides in pixels, but centres that are offsets in the units of strides."""
    if math.isfinite(grid_distance(reading, tables, size)):
        return False
    strides = grid_of(reading, size).strides[:, np.newaxis]
    boxes = [reading.in_order(table, size)[:, reading.columns("box")] for table in tables]
    near = all(
        np.mean((np.abs(each[:, :2]) < MAX_CELLS_AWAY * strides).all(axis=1)) > MOST
        for each in boxes
    )
    # Distances to the sides, as FCOS has them, are never negative.
    offsets = any(np.mean((each[:, :2] < 0).any(axis=1)) > SOME for each in boxes)
    return near and offsets and all(bool((each[:, 2:] > 0).all()) for each in boxes)


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
        _lack_exponential,
        (
            "many of its boxes have a negative width or height, so the export leaves out a step of "
            "decoding: a side is e to the power of its raw value, times the stride; export it with "
            "that step, or with raw rows"
        ),
    ),
    (
        _lack_grid,
        (
            "its boxes lie about the image's top left corner, whatever their cell, so the export "
            "leaves out a step of decoding: to a centre's raw value the cell's column and row are "
            "added before it is multiplied by the stride; export it with that step, or with raw "
            "rows"
        ),
    ),
)


def oddity(arrangement: Arrangement, tables: Sequence[Floats], size: Size) -> str | None:
    """How the values of rows betray another detector, or an export that is not finished, or None.

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
