"""Edits of a graph that was exported for one batch and one image size.

No edit proves that the result works; `prove_axes` does.
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

# Operators with a window of several pixels, and their attributes that do not set its size.
WINDOWED: Final = frozenset({"Conv", "MaxPool", "AveragePool"})
KEPT_OF_WINDOWED: Final = frozenset({"group", "strides"})


def open_batch_axis(model: onnx.ModelProto, input_name: str, batch: int) -> onnx.ModelProto:
    """A copy of the model whose batch axis is a symbol instead of `batch`.

    Reshape targets that start with `batch` copy that axis from their input instead, and the
    recorded shapes of inner tensors, which state the old batch, are dropped. Nothing else
    changes.
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
    """A copy of the model whose image height and width, and number of rows, are symbols.

    Reshape targets without an axis to be worked out get one in the place of a number of cells.
    Nothing else changes: a size that is frozen elsewhere stays.

    Args:
        model: Takes one size, or says so.
        image: Its input.
        cell_counts: Number of cells of each level, and of all together, at that size.
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
    """A copy of the model whose convolutions and pools see no more than they step over.

    A window of stride 1 becomes one pixel, one of stride 2 two by two, and all of them stay within
    the image. The taps of kernels that looked further move to the edge of that, so that a picture
    of one colour gives what it gave. Every cell of the result depends on its own square of the
    image and on nothing beyond, not even on where the image ends.
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
        # Any other kernel stays; onnxruntime then refuses the graph.
        if kernel.ndim == 4:
            down, across = map(_moves, kernel.shape[2:], pads[:2], strides)
            _replace(tensor, (down @ kernel @ across.T).astype(kernel.dtype))
    kept = [each for each in node.attribute if each.name in KEPT_OF_WINDOWED]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("kernel_shape", strides)])


def _moves(taps: int, pad: int, stride: int) -> NDArray[np.float32]:
    """(stride, taps) float32: 1 where a tap, or the nearest one within, goes."""
    places = np.clip(np.arange(taps) - pad, 0, stride - 1)
    return np.eye(stride, dtype=np.float32)[:, places]


def _name_axes(value: onnx.ValueInfoProto, names: Mapping[int, str]) -> None:
    axes = value.type.tensor_type.shape.dim
    for axis, name in names.items():
        if axis < len(axes):
            axes[axis].dim_param = name


def _without_cells(shape: NDArray[np.generic], cell_counts: Collection[int]) -> NDArray[np.generic]:
    """A Reshape target whose last number of cells is left to be worked out, if none is yet."""
    opened = shape.copy()
    places = [place for place, length in enumerate(shape.flat) if length in cell_counts]
    if places and not (shape == -1).any():
        opened.flat[places[-1]] = -1
    return opened


def _reshapes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == "Reshape"]


def _takes_zero_literally(reshape: onnx.NodeProto) -> bool:
    """Whether 0 in its target is not what it usually is, an axis to copy."""
    return any(attribute.name == "allowzero" and attribute.i for attribute in reshape.attribute)


def _second_inputs(
    nodes: Iterable[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> list[onnx.TensorProto]:
    """Their weights or target shapes, as far as the file holds them, each once."""
    names = dict.fromkeys(name for node in nodes for name in node.input[1:2])
    return [constants[name] for name in names if name in constants]


def _replace(tensor: onnx.TensorProto, value: NDArray[np.generic]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
