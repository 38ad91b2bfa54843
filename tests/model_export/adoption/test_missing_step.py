"""A file whose boxes cannot be right is refused, with the step that it leaves out where one is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.errors import ModelExportError
from model_export.graphs.pixel_values import PixelValues
from service.core.decode import anchor_grid

SIDE = 416
GRID = anchor_grid(SIDE, SIDE, (8, 16, 32))


class Decoding:
    """Nodes behind the released nano, whose rows become others."""

    def __init__(self, source: Path) -> None:
        self.model = onnx.load(source)
        self.graph = self.model.graph
        self.rows = self.graph.output[0].name
        for node in self.graph.node:
            node.output[:] = ["rows" if each == self.rows else each for each in node.output]
        constants = {
            "strides": GRID.strides[None, :, None],
            "cells": GRID.cells_ij[None],
            "xy": np.arange(2),
            "wh": np.arange(2, 4),
            "rest": np.arange(4, 85),
        }
        for name, value in constants.items():
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.xy, self.wh, self.rest = (
            self.add("Gather", "rows", name, axis=2) for name in ("xy", "wh", "rest")
        )

    def add(self, kind: str, *inputs: str, **attributes: int) -> str:
        output = f"added{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def scaled(self, name: str) -> str:
        return self.add("Mul", name, "strides")

    def save(self, path: Path, xy: str, wh: str) -> None:
        blocks = [xy, wh, self.rest]
        self.graph.node.append(helper.make_node("Concat", blocks, [self.rows], axis=2))
        onnx.save(self.model, path)

    @property
    def center(self) -> str:
        return self.scaled(self.add("Add", self.xy, "cells"))

    @property
    def sides(self) -> str:
        return self.scaled(self.add("Exp", self.wh))


Forms = Callable[[Decoding], tuple[str, str]]
LEFT_OUT: dict[str, tuple[Forms, str]] = {
    "logarithms times the stride": (lambda of: (of.center, of.scaled(of.wh)), "the exponential"),
    "logarithms": (lambda of: (of.center, of.wh), "the exponential"),
    "offsets times the stride": (lambda of: (of.scaled(of.xy), of.sides), "the grid"),
    "offsets": (lambda of: (of.xy, of.add("Exp", of.wh)), "the grid"),
    "grid added last": (
        lambda of: (of.add("Add", of.scaled(of.xy), "cells"), of.sides),
        "the grid",
    ),
    "sides in strides": (lambda of: (of.center, of.add("Exp", of.wh)), "the stride of the sides"),
    "centres in cells": (
        lambda of: (of.add("Add", of.xy, "cells"), of.sides),
        "the stride of the centres",
    ),
}


@pytest.mark.parametrize(
    "form",
    [*[*LEFT_OUT][:1], *(pytest.param(each, marks=pytest.mark.heavy) for each in [*LEFT_OUT][1:])],
)
def test_step_that_an_export_leaves_out_is_named(
    form: str, shared_data: Path, tmp_path: Path
) -> None:
    make, step = LEFT_OUT[form]
    decoding = Decoding(shared_data / "weights" / "yolox_nano.onnx")
    decoding.save(tmp_path / "form.onnx", *make(decoding))

    with pytest.raises(ModelExportError, match=f"the export leaves out {step}"):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", AdoptRequest())
    assert not (tmp_path / "out.onnx").exists()


def test_boxes_half_a_cell_away_are_refused(shared_data: Path, tmp_path: Path) -> None:
    decoding = Decoding(shared_data / "weights" / "yolox_nano.onnx")
    half = numpy_helper.from_array(np.float32([0.5]), "half")
    decoding.graph.initializer.append(half)
    decoding.save(tmp_path / "form.onnx", decoding.add("Sub", decoding.xy, "half"), decoding.wh)

    with pytest.raises(
        ModelExportError, match=r"by 0\.[45]\d cells to the left and 0\.[45]\d upwards"
    ):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", AdoptRequest())


def test_stated_pixel_values_do_not_excuse_boxes_in_wrong_places(
    shared_data: Path, tmp_path: Path
) -> None:
    """The cells go column by column here."""
    decoding = Decoding(shared_data / "weights" / "yolox_nano.onnx")
    order = np.concatenate(
        [
            start + np.arange(side * side).reshape(side, side).T.ravel()
            for start, side in ((0, 52), (2704, 26), (3380, 13))
        ]
    )
    decoding.graph.initializer.append(numpy_helper.from_array(order, "order"))
    rows = decoding.add("Concat", decoding.xy, decoding.wh, decoding.rest, axis=2)
    nodes = decoding.graph.node
    nodes.append(helper.make_node("Gather", [rows, "order"], [decoding.rows], axis=1))
    onnx.save(decoding.model, tmp_path / "form.onnx")

    request = AdoptRequest(pixel_values=PixelValues())
    with pytest.raises(ModelExportError, match="in their places"):
        adopt(tmp_path / "form.onnx", tmp_path / "out.onnx", request)
    assert not (tmp_path / "out.onnx").exists()
