"""How the columns of a table of rows become boxes and scores."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from model_export.adoption.reading.tables import Arrangement, Floats
from service.core.contract import ScoreActivation
from service.core.decode import AnchorGrid, anchor_grid, decode_boxes

Block = Literal["box", "objectness", "classes"]
# How four values become a box: the service's codings; or a box that is already decoded, as centre
# and size, as two corners, or as top-left corner and size; TensorFlow's have y before x.
BoxForm = Literal["yolox", "anchor_point", "cxcywh", "xyxy", "xywh", "yxyx", "cycxhw"]
# The unit of a decoded box.
BoxUnit = Literal["pixels", "image", "cells"]

MAX_CELLS_AWAY: Final = 3.0
# Share of the boxes that must be about their cells, and strides by which a form may be worse than
# the best: a corner that is read as a centre is off by half of the box.
MOST: Final = 0.8
AS_NEAR: Final = 0.25
# Correlation of box values with the places of their cells, from which on they hold those places.
FOLLOWS: Final = 0.5
# Rows that are looked at to tell forms apart; large images have ten times as many.
MAX_LOOKED_AT: Final = 1024
USUAL_ORDER: Final[tuple[Block, ...]] = ("box", "objectness", "classes")
ORDERS: Final = (USUAL_ORDER, *itertools.islice(itertools.permutations(USUAL_ORDER), 1, None))
Form = tuple[BoxForm, BoxUnit]
FORMS: Final[tuple[Form, ...]] = (
    ("yolox", "cells"),
    ("cxcywh", "pixels"),
    ("cxcywh", "image"),
    ("xyxy", "pixels"),
    ("xyxy", "image"),
    ("xywh", "pixels"),
    ("xywh", "image"),
    ("cxcywh", "cells"),
    ("yxyx", "pixels"),
    ("yxyx", "image"),
    ("cycxhw", "pixels"),
    ("cycxhw", "image"),
)
# Places of x and y of a box whose y comes first.
X_FIRST: Final = (1, 0, 3, 2)


@dataclass(frozen=True, slots=True)
class RowReading:
    """How to read the rows of an arrangement.

    Attributes:
        arrangement: The outputs.
        order: The order of the blocks of columns.
        form: How the four box values become a box.
        unit: The unit of a decoded box: pixels, shares of the image's sides, or strides.
        levels: For joined levels, the place of each level, by ascending stride, in the output.
        objectness: Whether objectness is a logit or a probability.
        classes: Whether classes are logits or probabilities.
    """

    arrangement: Arrangement
    order: tuple[Block, ...] = USUAL_ORDER
    form: BoxForm = "yolox"
    unit: BoxUnit = "cells"
    levels: tuple[int, ...] = ()
    objectness: ScoreActivation = "logits"
    classes: ScoreActivation = "logits"

    @property
    def num_classes(self) -> int:
        """C."""
        return self.arrangement.channels - 5

    @property
    def is_raw(self) -> bool:
        """Whether the boxes are in a coding of the service's."""
        return self.form in ("yolox", "anchor_point")

    @property
    def has_y_first(self) -> bool:
        """Whether y comes before x, and height before width."""
        return self.form in ("yxyx", "cycxhw")

    @property
    def corners_or_center(self) -> BoxForm:
        """The form, once x comes before y."""
        return {"yxyx": "xyxy", "cycxhw": "cxcywh"}.get(self.form, self.form)  # type: ignore[return-value]

    @property
    def reach(self) -> float:
        """Strides that a box's centre may be away from its cell, along either axis."""
        # The article's coding moves the corner, so that the centre is as far as the box is large.
        return math.inf if self.form == "anchor_point" else MAX_CELLS_AWAY

    def columns(self, block: Block) -> slice:
        """The columns of a block."""
        widths = {"box": 4, "objectness": 1, "classes": self.num_classes}
        start = sum(widths[each] for each in self.order[: self.order.index(block)])
        return slice(start, start + widths[block])

    def in_order(self, table: Floats, size: tuple[int, int]) -> Floats:
        """The rows of a table, (A, 5 + C), by ascending stride."""
        if self.levels in ((), tuple(range(len(self.levels)))):
            return table
        return np.concatenate([table[each] for each in self.level_slices(size)])

    def level_slices(self, size: tuple[int, int]) -> list[slice]:
        """The rows of each level in the output, levels by ascending stride."""
        cells = [(size[0] // stride) * (size[1] // stride) for stride in self.arrangement.strides]
        places = self.levels or tuple(range(len(cells)))
        by_place = sorted(range(len(cells)), key=lambda level: places[level])
        starts, at = {}, 0
        for level in by_place:
            starts[level] = at
            at += cells[level]
        return [slice(starts[level], starts[level] + cells[level]) for level in range(len(cells))]

    def boxes_xyxy(self, values: Floats, grid: AnchorGrid, size: tuple[int, int]) -> Floats:
        """Decode (K, 4) box values of these cells to corners in network pixels."""
        if self.form in ("yolox", "anchor_point"):
            return decode_boxes(values, grid.cells_ij, grid.strides, self.form)
        if self.has_y_first:
            values = values[:, X_FIRST]
        scaled = values * self._unit(grid, size)
        first, second = scaled[:, :2], scaled[:, 2:]
        form = self.corners_or_center
        if form == "xyxy":
            return scaled
        top_left = first - second / 2 if form == "cxcywh" else first
        return np.concatenate([top_left, top_left + second], axis=1)

    def _unit(self, grid: AnchorGrid, size: tuple[int, int]) -> Floats:
        if self.unit == "cells":
            return grid.strides[:, np.newaxis]
        height, width = size if self.unit == "image" else (1, 1)
        return np.array([width, height, width, height], np.float32)

    def __str__(self) -> str:
        form = {"yolox": "raw", "anchor_point": "raw (anchor points)"}.get(
            self.form, f"decoded to {self.form} in {self.unit}"
        )
        return f"columns {', '.join(self.order)}; boxes {form}"


def grid_of(reading: RowReading, size: tuple[int, int]) -> AnchorGrid:
    """The cells of the rows, by ascending stride."""
    return anchor_grid(*size, reading.arrangement.strides)


def row_readings(
    arrangement: Arrangement,
    tables: Sequence[Floats],
    size: tuple[int, int],
    levels: tuple[int, ...] = (),
    forms: Sequence[Form] = FORMS,
) -> list[RowReading]:
    """List the readings of an arrangement that the values allow.

    Args:
        arrangement: The outputs.
        tables: Its (A, 5 + C) rows for several pictures.
        size: (height, width) of the pictures in pixels.
        levels: For joined levels, the place of each in the output.
        forms: The forms of boxes to try.
    """
    found: list[RowReading] = []
    for order in orders_of(arrangement):
        plain = with_activations(RowReading(arrangement, order, levels=levels), tables)
        distances = {each: grid_distance(each, tables, size) for each in forms_of(plain, forms)}
        distances = _without_raw_if_decoded(distances, tables, size)
        nearest = min(distances.values())
        found += [
            each
            for each, distance in distances.items()
            if math.isfinite(distance) and distance <= nearest + AS_NEAR
        ]
    return _without_scores_as_boxes(found, tables)


def _without_scores_as_boxes(
    readings: list[RowReading], tables: Sequence[Floats]
) -> list[RowReading]:
    """Leave out unusual orders whose raw boxes are all of 0 to 1, as scores are."""
    return [each for each in readings if not hold_scores(each, tables)] or readings


def hold_scores(reading: RowReading, tables: Sequence[Floats]) -> bool:
    """Whether an unusual order takes scores for raw boxes."""
    if reading.order == USUAL_ORDER or not reading.is_raw:
        return False
    boxes = [table[:, reading.columns("box")] for table in tables]
    return all(bool(((each >= 0) & (each <= 1)).all()) for each in boxes)


def _without_raw_if_decoded(
    distances: dict[RowReading, float], tables: Sequence[Floats], size: tuple[int, int]
) -> dict[RowReading, float]:
    """Leave raw forms out if a decoded one fits, and the values grow with the cells' places.

    Shares of the image are small numbers, which would also do as raw offsets.
    """
    raw = [each for each in distances if each.is_raw]
    decoded = {each: at for each, at in distances.items() if not each.is_raw}
    if not raw or not any(map(math.isfinite, decoded.values())):
        return distances
    return decoded if any(_follows(raw[0], table, size) for table in tables) else distances


def _follows(reading: RowReading, table: Floats, size: tuple[int, int]) -> bool:
    """Whether the first two box values grow with the places of their cells."""
    grid = grid_of(reading, size)
    centers = (grid.cells_ij + 0.5) * grid.strides[:, np.newaxis]
    values = reading.in_order(table, size)[:, reading.columns("box")][:, :2]
    with np.errstate(all="ignore"):
        alike = np.corrcoef(values.T, centers.T)[:2, 2:]
    # Either x follows columns and y rows, or, where y comes first, the other way round.
    return bool(max(alike[0, 0] + alike[1, 1], alike[0, 1] + alike[1, 0]) > 2 * FOLLOWS)


def grid_distance(reading: RowReading, tables: Sequence[Floats], size: tuple[int, int]) -> float:
    """How far boxes are from their own cells on the best of the pictures, median, strides.

    It is infinite if more than a fifth of them are no boxes about their cells.
    """
    grid = grid_of(reading, size)
    # An odd step meets every column of maps whose width is even.
    some = np.arange(0, len(grid.strides), 1 | (1 + len(grid.strides) // MAX_LOOKED_AT))
    grid = grid.take(some)
    centers = (grid.cells_ij + 0.5) * grid.strides[:, np.newaxis]
    distances = [math.inf]
    for table in tables:
        rows = reading.in_order(table, size)[some][:, reading.columns("box")]
        with np.errstate(all="ignore"):
            boxes = reading.boxes_xyxy(rows, grid, size)
            away = np.abs((boxes[:, :2] + boxes[:, 2:]) / 2 - centers) / grid.strides[:, None]
            ordered = (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
            near = (away < reading.reach).all(axis=1) & ordered & _is_plain_size(reading, rows)
        if np.mean(near) > MOST:
            distances.append(float(np.median(away.max(axis=1))))
    return min(distances)


def _is_plain_size(reading: RowReading, rows: Floats) -> NDArray[np.bool_]:
    """Whether the logarithms of raw sizes stay in the range of images' sizes."""
    if not reading.is_raw:
        return np.ones(len(rows), np.bool_)
    return np.asarray((np.abs(rows[:, 2:]) < 8).all(axis=1), np.bool_)


def orders_of(arrangement: Arrangement) -> Iterator[tuple[Block, ...]]:
    """The orders whose blocks lie in one output each."""
    for order in ORDERS:
        reading = RowReading(arrangement, order)
        blocks = [reading.columns(block) for block in order]
        if all(
            not any(block.start < seam < block.stop for seam in arrangement.seams)
            for block in blocks
        ):
            yield order


def forms_of(reading: RowReading, forms: Sequence[Form]) -> Iterator[RowReading]:
    """The reading with each of these forms of boxes."""
    for form, unit in forms:
        yield replace(reading, form=form, unit=unit)


def with_activations(reading: RowReading, tables: Sequence[Floats]) -> RowReading:
    """The reading, with logits told from probabilities: some of them are outside 0 and 1."""
    seen: dict[Block, ScoreActivation] = {}
    for block in ("objectness", "classes"):
        values = [table[:, reading.columns(block)] for table in tables]
        within = all(bool(((each >= 0) & (each <= 1)).all()) for each in values)
        seen[block] = "probabilities" if within else "logits"
    return replace(reading, objectness=seen["objectness"], classes=seen["classes"])
