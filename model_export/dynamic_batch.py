"""Let a graph that was exported for one batch size take any, and prove that it still agrees."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from model_export.errors import ModelExportError
from model_export.onnx_network import OnnxNetwork, Rows, load_network
from model_export.probe import Probe

BATCH_AXIS: Final = "batch"

# Difference allowed between an image alone and in a batch, relative above 1: a batch may be
# summed in another order, in the precision of the output.
BATCH_TOLERANCE: Final = {"float32": 1e-4, "float16": 2e-2}


@dataclass(frozen=True, slots=True)
class ProvenBatch:
    """A graph, the batch size it takes (None for any), and how that was found."""

    model: onnx.ModelProto
    batch: int | None
    note: str


def prove_batches(model: onnx.ModelProto, network: OnnxNetwork, probe: Probe) -> ProvenBatch:
    """Find a form of the graph that gives each image of a batch what it gives the image alone.

    The graph itself is tried if it declares any batch size, then its copy with an open batch
    axis. Where neither agrees, the graph stays as it is, for one batch size only.
    """
    fixed = network.image.batch or 1
    candidates = [open_batch_axis(model, network.image.name, fixed)]
    if network.image.batch is None:
        candidates.insert(0, model)
    for candidate in candidates:
        difference, tolerance = _batch_difference(candidate, network, probe)
        if difference <= tolerance:
            return ProvenBatch(
                candidate,
                None,
                f"any batch size: {len(probe.images)} images at once agree with each alone "
                f"(largest difference {difference:.1e}, allowed {tolerance:.0e})",
            )
    return ProvenBatch(
        model, fixed, f"batch size {fixed} only: the graph does not work, or not alike, with others"
    )


def open_batch_axis(model: onnx.ModelProto, input_name: str, batch: int) -> onnx.ModelProto:
    """A copy of the model whose batch axis is a symbol instead of `batch`.

    Reshape targets that start with `batch` copy that axis from their input instead, and the
    recorded shapes of inner tensors, which state the old batch, are dropped. Nothing else
    changes. Whether the result works is for the caller to prove.
    """
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    graph = opened.graph
    images = [value for value in graph.input if value.name == input_name]
    for value in (*images, *graph.output):
        axes = value.type.tensor_type.shape.dim
        if axes:
            axes[0].dim_param = BATCH_AXIS
    del graph.value_info[:]
    for tensor in _reshape_targets(graph):
        shape = numpy_helper.to_array(tensor).copy()
        if shape.size and shape.flat[0] == batch:
            shape.flat[0] = 0
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    return opened


def _batch_difference(
    model: onnx.ModelProto, network: OnnxNetwork, probe: Probe
) -> tuple[float, float]:
    """The largest difference between images at once and each alone, and what is allowed."""
    try:
        batched = load_network(model.SerializeToString(), network.value_range).run(probe.images)
    except ModelExportError:
        return float("inf"), 0.0
    return largest_difference(batched, probe.rows), BATCH_TOLERANCE[batched.dtype.name]


def largest_difference(batched: Rows, singles: Rows) -> float:
    """The largest difference of two (N, A, 5 + C) outputs, relative where values exceed 1."""
    if batched.shape != singles.shape:
        return float("inf")
    reference = singles.astype(np.float64)
    return float(np.max(np.abs(batched - reference) / np.maximum(1, np.abs(reference))))


def _reshape_targets(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """The constant shapes that Reshape nodes take, where 0 means to copy an axis."""
    names = {
        name
        for node in graph.node
        if node.op_type == "Reshape" and not _takes_zero_literally(node)
        for name in node.input[1:2]
    }
    constants = [node for node in graph.node if node.op_type == "Constant"]
    return [tensor for tensor in graph.initializer if tensor.name in names] + [
        attribute.t
        for node in constants
        if node.output[0] in names
        for attribute in node.attribute
        if attribute.name == "value"
    ]


def _takes_zero_literally(reshape: onnx.NodeProto) -> bool:
    return any(attribute.name == "allowzero" and attribute.i for attribute in reshape.attribute)
