"""Fold Focus, YOLOX's first layer, into the convolution after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from model_export.graphs.edit import constants_of, copy_without_shapes, drop_unused
from model_export.graphs.network import OnnxNetwork

Constants = Mapping[str, onnx.TensorProto]
Kernel = NDArray[np.floating[Any]]

COLORS: Final = 3
CORNERS: Final = 4
# Side of the picture that shows where Focus puts each pixel: its values all differ, in float16 too.
MARKED_SIDE: Final = 8


def fold_focus(model: onnx.ModelProto, _: OnnxNetwork) -> onnx.ModelProto | None:
    """A copy with Focus and the convolution after it folded into one convolution of stride 2.

    Returns:
        None if no convolution takes the corners of 2x2 squares as channels.
    """
    copy = copy_without_shapes(model)
    graph, constants = copy.graph, constants_of(copy.graph)
    for conv in graph.node:
        if conv.op_type == "Conv" and conv.input[1] in constants:
            kernel = numpy_helper.to_array(constants[conv.input[1]])
            focus = _focus(copy, conv.input[0], constants)
            if focus is not None and _takes_corners(conv, kernel):
                _fold(graph, conv, kernel, focus)
                return copy
    return None


@dataclass(frozen=True, slots=True)
class _Focus:
    """Nodes that stack the corners of 2x2 squares as channels.

    Attributes:
        source: Name of their input, (N, 3, H, W).
        places: For each output channel, its colour and its row and column in the square.
    """

    source: str
    places: tuple[tuple[int, int, int], ...]


def _focus(model: onnx.ModelProto, stacked: str, constants: Constants) -> _Focus | None:
    """The Focus that computes a tensor, or None if it is not a Concat of slices of one input."""
    makers = {name: node for node in model.graph.node for name in node.output}
    join = makers.get(stacked)
    if join is None or join.op_type != "Concat":
        return None
    slices: list[onnx.NodeProto] = []
    sources = set()
    for name in join.input:
        source = name
        while source in makers and makers[source].op_type == "Slice":
            slices.insert(0, makers[source])
            source = makers[source].input[0]
        sources.add(source)
    needed = {name for node in slices for name in node.input[1:] if name}
    if len(sources) != 1 or not needed <= constants.keys():
        return None
    (source,) = sources
    places = _places_of_corners(model, source, [*slices, join], constants)
    return None if places is None else _Focus(source, places)


def _places_of_corners(
    model: onnx.ModelProto, source: str, nodes: list[onnx.NodeProto], constants: Constants
) -> tuple[tuple[int, int, int], ...] | None:
    """Find each channel's source pixels by running the nodes on a picture of distinct values.

    Returns:
        Colour, row and column of each channel, or None if the nodes are not a Focus.
    """
    shape = (1, COLORS, MARKED_SIDE, MARKED_SIDE)
    marked = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    each_once = {node.output[0]: node for node in nodes}
    graph = helper.make_graph(
        list(each_once.values()),
        "focus",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(numpy_helper.to_array(constants[name]), name)
            for name in {name for node in nodes[:-1] for name in node.input[1:] if name}
        ],
    )
    alone = helper.make_model(graph, opset_imports=model.opset_import)
    try:
        (stacked,) = map(np.asarray, ReferenceEvaluator(alone).run(None, {source: marked}))
    except Exception:  # noqa: BLE001 - nodes that fail are not a Focus
        return None
    corners = {
        marked[0, color, row::2, column::2].tobytes(): (color, row, column)
        for color, row, column in np.ndindex(COLORS, 2, 2)
    }
    if stacked.shape[:2] != (1, COLORS * CORNERS):
        return None
    places = [corners.get(channel.tobytes()) for channel in stacked[0]]
    known = tuple(place for place in places if place is not None)
    return known if len(known) == len(places) else None


def _takes_corners(conv: onnx.NodeProto, kernel: Kernel) -> bool:
    values = {each.name: helper.get_attribute_value(each) for each in conv.attribute}
    plain = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
    return kernel.shape[1] == COLORS * CORNERS and all(
        values.get(name, usual) == usual for name, usual in plain.items()
    )


def _fold(graph: onnx.GraphProto, conv: onnx.NodeProto, kernel: Kernel, focus: _Focus) -> None:
    """Connect a convolution to the pixels themselves, and remove nodes that are then unused."""
    count, _, height, width = kernel.shape
    folded = np.zeros((count, COLORS, 2 * height, 2 * width), kernel.dtype)
    for channel, (color, row, column) in enumerate(focus.places):
        folded[:, color, row::2, column::2] += kernel[:, channel]
    values = {each.name: helper.get_attribute_value(each) for each in conv.attribute}
    pads = [2 * pad for pad in values.get("pads", [0] * 4)]
    name = f"{conv.input[1]}_folded"
    graph.initializer.append(numpy_helper.from_array(folded, name))
    conv.input[:2] = [focus.source, name]
    del conv.attribute[:]
    conv.attribute.extend(
        helper.make_attribute(key, value)
        for key, value in (
            ("kernel_shape", [2 * height, 2 * width]),
            ("strides", [2, 2]),
            ("pads", pads),
        )
    )
    drop_unused(graph)
