"""Optimize a third-party graph, and keep each rewrite only if the outputs agree.

Three costs of each image can be reduced:

- **The input.** A float32 input makes the CPU convert each pixel, and is four times as many bytes
  to copy to a GPU as uint8. A uint8 input is converted on the device that runs the network.
- **Focus**, YOLOX's first layer, moves the corners of each 2x2 square into channels, before a
  convolution. A convolution with twice the kernel size and stride 2 computes the same directly.
- **Pooling** over 5x5, 9x9 and 13x13 (SPP): a 5x5 pool of the 5x5 maxima gives exactly the 9x9
  maxima, and a 5x5 pool of those gives exactly the 13x13 maxima.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from model_export.errors import ModelExportError
from model_export.graphs.edit import (
    constants_of,
    copy_without_shapes,
    drop_unused,
    replace_nodes,
)
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.probe import Probe, is_large
from model_export.graphs.prove_axes import ProvenAxes, Tried, largest_difference

Constants = Mapping[str, onnx.TensorProto]
Kernel = NDArray[np.floating[Any]]
# Gives None where it does not apply; and a note for the user.
Rewrite = tuple[Callable[[onnx.ModelProto, OnnxNetwork], onnx.ModelProto | None], str]

COLORS: Final = 3
CORNERS: Final = 4
TO_NHWC: Final = (0, 2, 3, 1)
TO_NCHW: Final = (0, 3, 1, 2)
# Allowed difference between rows, relative for values above 1. A convolution that adds the same
# products in another order changes YOLOX-nano's rows by at most 2e-4; one that adds wrong products
# changes them by far more.
TOLERANCE: Final = {"float32": 1e-3, "float16": 5e-2}
# Side of the picture that shows where Focus puts each pixel: its values all differ, in float16 too.
MARKED_SIDE: Final = 8


class Quickened(NamedTuple):
    """A rewritten graph, the same graph loaded, and a note for the user on each rewrite."""

    model: onnx.ModelProto
    network: OnnxNetwork
    notes: tuple[str, ...]


def quicken(proven: ProvenAxes, network: OnnxNetwork, probe: Probe) -> Quickened:
    """Simplify a graph; keep each rewrite only if the outputs then agree at every tested size.

    All are tried at once, and one after the other if the outputs do not agree. Where images are
    large and the graph takes other sizes, rows are compared at those alone.
    """
    known = _known_rows(proven, probe)
    whole = _rewritten(proven.model, network, _rewrites(), known)
    if whole is not None:
        return whole
    best = Quickened(proven.model, _load(proven.model, network), ())
    for rewrite in _rewrites():
        tried = _rewritten(best.model, network, (rewrite,), known)
        if tried is not None:
            best = Quickened(tried.model, tried.network, (*best.notes, *tried.notes))
    return best


def _rewritten(
    model: onnx.ModelProto,
    network: OnnxNetwork,
    rewrites: Sequence[Rewrite],
    known: Sequence[Tried],
) -> Quickened | None:
    """A graph with rewrites, those that apply; None if none does, or its rows are others."""
    notes = []
    for rewrite, note in rewrites:
        changed = rewrite(model, network)
        if changed is not None:
            model = changed
            notes.append(note)
    if not notes:
        return None
    try:
        loaded = _load(model, network)
        differences = [
            largest_difference(loaded.run_singly(tried.images), tried.rows) for tried in known
        ]
    except ModelExportError:
        return None
    if max(differences) > TOLERANCE[known[0].rows.dtype.name]:
        return None
    told = f"largest difference {'of all rewrites ' * (len(notes) > 1)}{max(differences):.1e}"
    return Quickened(model, loaded, tuple(f"{note} ({told})" for note in notes))


def _known_rows(proven: ProvenAxes, probe: Probe) -> tuple[Tried, ...]:
    """Images of the usual size, and of each other size that the graph accepts, with their rows."""
    usual = Tried(probe.images, probe.rows)
    if not is_large(*probe.images.shape[1:3]):
        return (usual, *proven.others)
    return proven.others or (Tried(probe.images[:1], probe.rows[:1]),)


def take_bytes(model: onnx.ModelProto, network: OnnxNetwork) -> onnx.ModelProto | None:
    """A copy that takes (N, H, W, 3) uint8 pixels, 0 to 255.

    Returns:
        None if the graph already does, or takes pixels in another range.
    """
    image = network.image
    if (image.layout, image.dtype) == ("NHWC", "uint8") or network.value_range != (0.0, 255.0):
        return None
    copy = copy_without_shapes(model)
    graph = copy.graph
    (given,) = (value for value in graph.input if value.name == image.name)
    taken = f"{image.name}_taken"
    for node in graph.node:
        node.input[:] = [taken if name == image.name else name for name in node.input]
    axes = [*given.type.tensor_type.shape.dim]
    # The Cast comes first: TensorRT accepts uint8 only as the input of a conversion.
    pixels = taken if image.layout == "NHWC" else f"{image.name}_converted"
    element = given.type.tensor_type.elem_type
    nodes = [helper.make_node("Cast", [image.name], [pixels], to=element)]
    if image.layout == "NCHW":
        axes = [axes[axis] for axis in TO_NHWC]
        nodes.append(helper.make_node("Transpose", [pixels], [taken], perm=TO_NCHW))
    shape = [axis.dim_param or axis.dim_value or None for axis in axes]
    given.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.UINT8, shape))
    replace_nodes(graph, [*nodes, *graph.node])
    return copy


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


def chain_pools(model: onnx.ModelProto, _: OnnxNetwork) -> onnx.ModelProto | None:
    """A copy in which each larger max pool takes the output of the next smaller one as its input.

    Returns:
        None if no tensor is pooled over squares of several sizes.
    """
    copy = copy_without_shapes(model)
    nodes: list[onnx.NodeProto] = []
    pools: dict[str, list[_Pool]] = {}
    for node in copy.graph.node:
        side = _side_of_pool(node)
        if side is None:
            nodes.append(node)
            continue
        if node.input[0] not in pools:
            pools[node.input[0]] = []
            nodes.append(node)
        pools[node.input[0]].append(_Pool(side, node))
    chained = False
    for same in pools.values():
        # Nodes must stay in topological order: all pools move to the place of the first one.
        place = nodes.index(same[0].node)
        same.sort(key=lambda pool: pool.side)
        nodes[place : place + 1] = [pool.node for pool in same]
        for smaller, pool in itertools.pairwise(same):
            if pool.side > smaller.side:
                pool.go_on_from(smaller)
                chained = True
    replace_nodes(copy.graph, nodes)
    return copy if chained else None


@dataclass(frozen=True, slots=True)
class _Pool:
    """A MaxPool node that keeps the size of its input, and the side of its square kernel."""

    side: int
    node: onnx.NodeProto

    def go_on_from(self, smaller: "_Pool") -> None:
        """Take the output of a smaller pool as input, and shrink the kernel accordingly."""
        rest = self.side - smaller.side + 1
        self.node.input[0] = smaller.node.output[0]
        for attribute in self.node.attribute:
            if attribute.name == "kernel_shape":
                attribute.ints[:] = [rest] * 2
            elif attribute.name == "pads":
                attribute.ints[:] = [rest // 2] * 4


def _side_of_pool(node: onnx.NodeProto) -> int | None:
    """The kernel side if a node is a square MaxPool that keeps the size of its input, else None."""
    if node.op_type != "MaxPool" or len(node.output) != 1:
        return None
    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    side = values["kernel_shape"][0]
    asked = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4}
    usual = {"strides": [1, 1], "dilations": [1, 1], "auto_pad": b"NOTSET", "ceil_mode": 0}
    found = usual | values
    return side if side % 2 and side > 1 and found == usual | asked else None


def _rewrites() -> tuple[Rewrite, ...]:
    return (
        (take_bytes, "takes pixels as bytes, (N, H, W, 3)"),
        (fold_focus, "Focus is folded into its convolution"),
        (chain_pools, "each larger pooling starts from the smaller one"),
    )


def _load(model: onnx.ModelProto, network: OnnxNetwork) -> OnnxNetwork:
    return load_network(model.SerializeToString(), network.value_range)
