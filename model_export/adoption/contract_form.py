"""Rewrite a graph so that its one output has the rows that a contract promises."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model_export.adoption.reading.rows import USUAL_ORDER, X_FIRST, RowReading, grid_of
from model_export.adoption.reading.tables import Part
from model_export.graphs.edit import copy_without_shapes, drop_unused
from service.core.contract import ScoreActivation

OUTPUT: Final = "contract_rows"
# The smallest side of a box, in strides, whose logarithm is taken.
SMALLEST: Final = 1e-9
XY: Final = (0, 1)
WH: Final = (2, 3)


def activation_of(reading: RowReading) -> ScoreActivation:
    """The kind of scores that the rewritten rows have."""
    alike = reading.objectness == reading.classes
    return reading.objectness if alike else "probabilities"


def is_in_contract_form(reading: RowReading, rank: int) -> bool:
    """Whether an output of this rank already has the rows that a contract promises."""
    (*others,) = reading.arrangement.groups[1:]
    part = reading.arrangement.groups[0][0]
    return (
        not others
        and len(reading.arrangement.groups[0]) == 1
        and part.has_batch
        and (part.axis, rank) == (2, 3)
        and reading.order == USUAL_ORDER
        and reading.is_raw
        and reading.levels in ((), tuple(range(len(reading.levels))))
        and reading.objectness == reading.classes
    )


def in_contract_form(
    model: onnx.ModelProto,
    reading: RowReading,
    ranks: dict[str, int],
    size: tuple[int, int],
    batch: int | None,
) -> onnx.ModelProto:
    """A copy of a model with one output, raw rows (N, A, 5 + C).

    Args:
        model: The graph.
        reading: How its outputs are read.
        ranks: The number of axes of each output.
        size: (height, width) of its images in pixels; decoded boxes and levels in another order
            bind the copy to it.
        batch: The number of images that the graph takes, or None for any.
    """
    copy = copy_without_shapes(model)
    graph = copy.graph
    only = reading.arrangement.groups[0][0].output
    if is_in_contract_form(reading, ranks[only]):
        kept = [value for value in graph.output if value.name == only]
    else:
        rows = _Rows(graph, reading, ranks, size)
        kept = [_declared(rows.build(), reading, size, batch)]
    del graph.output[:]
    graph.output.extend(kept)
    drop_unused(graph)
    return copy


def _declared(
    name: str, reading: RowReading, size: tuple[int, int], batch: int | None
) -> onnx.ValueInfoProto:
    batched = reading.arrangement.groups[0][0].has_batch
    first = (batch or "batch") if batched else 1
    cells = len(grid_of(reading, size).strides)
    shape = [first, cells, reading.arrangement.channels]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@dataclass(slots=True)
class _Rows:
    """Appends the nodes that turn outputs into raw rows."""

    graph: onnx.GraphProto
    reading: RowReading
    ranks: dict[str, int]
    size: tuple[int, int]
    _count: int = field(default=0)

    def build(self) -> str:
        """Append all nodes; the name of the rows."""
        levels = [self._side_by_side(group) for group in self.reading.arrangement.groups]
        rows = self._add("Concat", levels, axis=1) if len(levels) > 1 else levels[0]
        rows = self._levels_in_order(rows)
        blocks = [self._box(rows), *self._scores(rows)]
        return self._add("Concat", blocks, OUTPUT, axis=2)

    def _side_by_side(self, group: tuple[Part, ...]) -> str:
        tables = [self._table(part) for part in group]
        return self._add("Concat", tables, axis=2) if len(tables) > 1 else tables[0]

    def _table(self, part: Part) -> str:
        """(N, rows, columns) float32 of an output."""
        rank = self.ranks[part.output]
        name = self._add("Cast", [part.output], to=TensorProto.FLOAT)
        if part.axis != rank - 1:
            axes = [axis for axis in range(rank) if axis != part.axis]
            name = self._add("Transpose", [name], perm=[*axes, part.axis])
        if rank == 3 and part.has_batch:
            return name
        target = np.array([0 if part.has_batch else 1, -1, part.channels])
        return self._add("Reshape", [name, self._constant(target)])

    def _levels_in_order(self, rows: str) -> str:
        slices = self.reading.level_slices(self.size)
        numbers = np.concatenate([np.arange(each.start, each.stop) for each in slices])
        if (np.diff(numbers) == 1).all():
            return rows
        return self._add("Gather", [rows, self._constant(numbers)], axis=1)

    def _columns(self, rows: str, columns: NDArray[np.int64]) -> str:
        return self._add("Gather", [rows, self._constant(columns)], axis=2)

    def _block(self, rows: str, columns: slice) -> str:
        return self._columns(rows, np.arange(columns.start, columns.stop))

    def _scores(self, rows: str) -> list[str]:
        """Objectness and classes, both logits or both probabilities."""
        kinds = (
            (self.reading.columns("objectness"), self.reading.objectness),
            (self.reading.columns("classes"), self.reading.classes),
        )
        wanted = activation_of(self.reading)
        blocks = [(self._block(rows, columns), kind) for columns, kind in kinds]
        return [name if kind == wanted else self._add("Sigmoid", [name]) for name, kind in blocks]

    def _box(self, rows: str) -> str:
        """Raw box values: the inverse of the service's decoding."""
        box = self._block(rows, self.reading.columns("box"))
        if self.reading.is_raw:
            return box
        if self.reading.has_y_first:
            box = self._columns(box, np.array(X_FIRST))
        if self.reading.unit == "image":
            height, width = self.size
            box = self._by("Mul", box, np.array([width, height, width, height]))
        first, second = (self._columns(box, np.array(pair)) for pair in (XY, WH))
        grid = grid_of(self.reading, self.size)
        strides = grid.strides[np.newaxis, :, np.newaxis]
        form = self.reading.corners_or_center
        if form == "xyxy":
            first, second = self._add("Add", [first, second]), self._add("Sub", [second, first])
            first = self._by("Mul", first, np.array(0.5))
        elif form == "xywh":
            first = self._add("Add", [first, self._by("Mul", second, np.array(0.5))])
        if self.reading.unit != "cells":
            first, second = (self._by("Div", each, strides) for each in (first, second))
        offsets = self._by("Sub", first, grid.cells_ij[np.newaxis])
        sides = self._add("Log", [self._by("Max", second, np.array(SMALLEST))])
        return self._add("Concat", [offsets, sides], axis=2)

    def _by(self, kind: str, name: str, constant: NDArray[Any]) -> str:
        return self._add(kind, [name, self._constant(constant.astype(np.float32))])

    def _constant(self, value: NDArray[Any]) -> str:
        self._count += 1
        name = f"{OUTPUT}_constant{self._count}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:  # noqa: ANN401
        self._count += 1
        output = name or f"{OUTPUT}_{kind.lower()}{self._count}"
        self.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
