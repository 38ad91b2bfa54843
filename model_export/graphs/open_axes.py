"""Open the batch, height and width axes of a graph that was exported with fixed ones.

The edits do not check that the result works; `prove_axes` does.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model_export.graphs.edit import constants_of, copy_without_shapes
from model_export.graphs.network import ImageInput

IMAGE_AXES: Final = {"NCHW": {2: "height", 3: "width"}, "NHWC": {1: "height", 2: "width"}}

# Operators with a window of several pixels, and the attributes that they keep when it is narrowed.
WINDOWED: Final = frozenset({"Conv", "MaxPool", "AveragePool"})
KEPT_OF_WINDOWED: Final = frozenset({"group", "strides"})


def open_batch_axis(model: onnx.ModelProto, input_name: str, batch: int) -> onnx.ModelProto:
    """A copy of the model whose batch axis is a symbol instead of `batch`.

    Reshape targets that start with `batch` now copy that axis from their input. The recorded
    shapes of inner tensors, which state the old batch, are dropped. Nothing else changes.
    """
    opened = copy_without_shapes(model)
    graph = opened.graph
    images = [value for value in graph.input if value.name == input_name]
    for value in (*images, *graph.output):
        _name_axes(value, {0: "batch"})
    reshapes = [node for node in _reshapes(graph) if not _takes_zero_literally(node)]
    for tensor in _second_inputs(reshapes, constants_of(graph)):
        shape = numpy_helper.to_array(tensor).copy()
        if shape.size and shape.flat[0] == batch:
            shape.flat[0] = 0
            _replace(tensor, shape)
    return opened


def open_size_axes(
    model: onnx.ModelProto, image: ImageInput, cell_counts: Collection[int]
) -> onnx.ModelProto:
    """A copy of the model whose image height and width, and number of output rows, are symbols.

    In Reshape targets without an inferred axis (-1), the last number of cells becomes -1. Nothing
    else changes: a size that is fixed elsewhere in the graph stays.

    Args:
        model: A graph that declares one image size.
        image: Its input.
        cell_counts: The number of cells of each level, and of all levels together, at that size.
    """
    opened = copy_without_shapes(model)
    graph = opened.graph
    for value in graph.input:
        if value.name == image.name:
            _name_axes(value, IMAGE_AXES[image.layout])
    for value in graph.output:
        _name_axes(value, {1: "cells"})
    for tensor in _second_inputs(_reshapes(graph), constants_of(graph)):
        _replace(tensor, _without_cells(numpy_helper.to_array(tensor), cell_counts))
    return opened


def narrow_windows(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model whose convolutions and pools have windows as large as their stride.

    A window of stride 1 becomes one pixel, a window of stride 2 becomes 2x2 pixels, and there is no
    padding. Kernel taps outside the new window are added to the nearest tap inside it, so that a
    uniform image gives the same values as before, away from its border. Every output cell then
    depends on its own square of the image alone, and not on where the image ends.
    """
    narrow = copy_without_shapes(model)
    constants = constants_of(narrow.graph)
    for node in narrow.graph.node:
        if node.op_type in WINDOWED:
            _narrow(node, constants)
    return narrow


def _narrow(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    strides, pads = values.get("strides", [1, 1]), values.get("pads", [0, 0, 0, 0])
    for tensor in _second_inputs([node], constants):
        kernel = numpy_helper.to_array(tensor)
        # A kernel of another rank stays; onnxruntime then refuses the graph.
        if kernel.ndim == 4:
            down, across = map(_moves, kernel.shape[2:], pads[:2], strides)
            _replace(tensor, (down @ kernel @ across.T).astype(kernel.dtype))
    kept = [each for each in node.attribute if each.name in KEPT_OF_WINDOWED]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("kernel_shape", strides)])


def _moves(taps: int, pad: int, stride: int) -> NDArray[np.float32]:
    """(stride, taps) float32: 1 at the place that each tap moves to, along one axis."""
    places = np.clip(np.arange(taps) - pad, 0, stride - 1)
    return np.eye(stride, dtype=np.float32)[:, places]


def _name_axes(value: onnx.ValueInfoProto, names: Mapping[int, str]) -> None:
    axes = value.type.tensor_type.shape.dim
    for axis, name in names.items():
        if axis < len(axes):
            axes[axis].dim_param = name


def _without_cells(shape: NDArray[np.generic], cell_counts: Collection[int]) -> NDArray[np.generic]:
    """A Reshape target whose last number of cells becomes -1, if it has no -1 yet."""
    opened = shape.copy()
    places = [place for place, length in enumerate(shape.flat) if length in cell_counts]
    if places and not (shape == -1).any():
        opened.flat[places[-1]] = -1
    return opened


def _reshapes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Reshape"]


def _takes_zero_literally(reshape: onnx.NodeProto) -> bool:
    """Whether 0 in its target means an axis of length 0, and not an axis to copy."""
    return any(attribute.name == "allowzero" and attribute.i for attribute in reshape.attribute)


def _second_inputs(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> list[onnx.TensorProto]:
    """The weights or target shapes of nodes, as far as the file stores them, each once."""
    names = dict.fromkeys(name for node in nodes for name in node.input[1:2])
    return [constants[name] for name in names if name in constants]


def _replace(tensor: onnx.TensorProto, value: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
