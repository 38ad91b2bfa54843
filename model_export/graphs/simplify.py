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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import onnx
from onnx import TensorProto, helper

from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes, replace_nodes
from model_export.graphs.focus import fold_focus
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.probe import Probe, is_large
from model_export.graphs.prove_axes import ProvenAxes, Tried, largest_difference

# Gives None where it does not apply; and a note for the user.
Rewrite = tuple[Callable[[onnx.ModelProto, OnnxNetwork], onnx.ModelProto | None], str]

TO_NHWC: Final = (0, 2, 3, 1)
TO_NCHW: Final = (0, 3, 1, 2)
# Allowed difference between rows, relative for values above 1. A convolution that adds the same
# products in another order changes YOLOX-nano's rows by at most 2e-4; one that adds wrong products
# changes them by far more.
TOLERANCE: Final = {"float32": 1e-3, "float16": 5e-2}


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
