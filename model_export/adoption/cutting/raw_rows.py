"""Cut a graph where its rows are still raw."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx

from model_export.adoption.contract_form import is_in_contract_form
from model_export.adoption.reading.choice.candidate import Candidate
from model_export.adoption.reading.evidence import probabilities
from model_export.adoption.reading.pictures import first_pictures
from model_export.adoption.reading.rows import Form, RowReading, grid_of, row_readings
from model_export.adoption.reading.tables import Arrangement, Floats, parts_of
from model_export.adoption.reading.trial_network import Outputs, TrialNetwork, open_trial
from model_export.graphs.edit import with_outputs
from model_export.graphs.prepare import inner_tables

# Allowed difference between rows of an inner tensor and of the outputs: pixels, and scores.
SAME_BOX: Final = 0.5
SAME_SCORE: Final = 1e-3


def at_raw_rows(
    model: onnx.ModelProto,
    network: TrialNetwork,
    reading: Candidate,
    class_names: Sequence[str],
    rank: int,
) -> tuple[onnx.ModelProto, RowReading, tuple[str, ...]]:
    """Cut a graph where it has raw rows, before it rearranges or decodes them, if it has.

    Args:
        model: The graph.
        network: The same graph, loaded.
        reading: How its outputs are read.
        class_names: One name for each class.
        rank: The number of axes of its first output.

    Returns:
        The graph, cut or as it is; how the rows of its output are read; and a note if it is cut.
    """
    size = (network.height, network.width)
    rows = reading.rows
    cells = len(grid_of(rows, size).strides)
    if is_in_contract_form(rows, rank):
        return model, rows, ()
    names = inner_tables(model, network.image, size, (cells, rows.arrangement.channels))
    if not names:
        return model, rows, ()
    cut = with_outputs(model, dict.fromkeys([*names, *_outputs(rows)]))
    picture = first_pictures(size, class_names)[0].image
    outputs = open_trial(cut.SerializeToString(), size).run(picture, reading.values)
    expected = _decoded(rows, outputs, size)
    for name in reversed(names):
        inner = _raw_reading(rows, name, outputs, size)
        if inner is not None and _same(_decoded(inner, outputs, size), expected):
            note = f"the graph is cut at {name}, where its rows are still raw"
            return with_outputs(model, [name]), inner, (note,)
    return model, rows, ()


def _outputs(rows: RowReading) -> list[str]:
    return [part.output for group in rows.arrangement.groups for part in group]


def _raw_reading(
    rows: RowReading, name: str, outputs: Outputs, size: tuple[int, int]
) -> RowReading | None:
    """An inner tensor as raw rows in the usual order, if its values allow that."""
    strides = rows.arrangement.strides
    cells = len(grid_of(rows, size).strides)
    parts = [part for part in parts_of(name, outputs[name].shape, cells) if part.axis == 2]
    for part in parts:
        arrangement = Arrangement(strides, ((part,),))
        levels = tuple(range(len(strides)))
        tables = [arrangement.table(outputs)]
        raw: tuple[Form, ...] = ((rows.form if rows.is_raw else "yolox", "cells"),)
        for each in row_readings(arrangement, tables, size, levels, raw):
            if is_in_contract_form(each, outputs[name].ndim):
                return each
    return None


def _decoded(rows: RowReading, outputs: Outputs, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """(A, 4) boxes in pixels and (A, 1 + C) scores."""
    table = rows.in_order(rows.arrangement.table(outputs), size)
    boxes = rows.boxes_xyxy(table[:, rows.columns("box")], grid_of(rows, size), size)
    scores = [
        probabilities(table[:, rows.columns("objectness")], rows.objectness),
        probabilities(table[:, rows.columns("classes")], rows.classes),
    ]
    return boxes, np.concatenate(scores, axis=1)


def _same(found: tuple[Floats, Floats], expected: tuple[Floats, Floats]) -> bool:
    pairs = zip(found, expected, (SAME_BOX, SAME_SCORE), strict=True)
    return all(np.allclose(one, other, atol=atol, rtol=1e-3) for one, other, atol in pairs)
