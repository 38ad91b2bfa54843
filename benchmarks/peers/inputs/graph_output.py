"""How a graph gives scores, rewritten to float32 probabilities: the form of most YOLOX files."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_export.graphs.edit import copy_without_shapes

BOX_VALUES: Final = 4
HEAD_PARTS: Final = 3
PROBABILITY: Final = "_probability"
EVERYTHING: Final = int(np.iinfo(np.int64).max)


def give_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose rows are float32."""
    copy = copy_without_shapes(model)
    kind = copy.graph.output[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT:
        raw, output = _set_output_aside(copy.graph, "half")
        copy.graph.node.append(helper.make_node("Cast", [raw], [output], to=TensorProto.FLOAT))
        kind.elem_type = TensorProto.FLOAT
    return copy


def put_sigmoids_into_head(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy with sigmoids where YOLOX's exporter has them: right behind the last convolutions.

    ONNX Runtime fuses them with those.

    Returns:
        None if the head does not join boxes, objectness and classes level by level.
    """
    copy = copy_without_shapes(model)
    joins = _joins_of_levels(copy.graph)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.output[0] in joins:
            box, *scores = node.input
            names = [name + PROBABILITY for name in scores]
            pairs = zip(scores, names, strict=True)
            nodes += [helper.make_node("Sigmoid", [score], [name]) for score, name in pairs]
            node.input[:] = [box, *names]
        nodes.append(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy if joins else None


def put_sigmoid_at_end(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that cuts its rows into boxes and scores, and joins them again behind a sigmoid."""
    copy = copy_without_shapes(model)
    graph = copy.graph
    raw, output = _set_output_aside(graph, "logits")
    bounds = {"first": 0, "scores": BOX_VALUES, "end": EVERYTHING, "axis": 2}
    first, scores, end, axis = (f"{output}_{name}" for name in bounds)
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), f"{output}_{name}")
        for name, value in bounds.items()
    )
    boxes, logits, probabilities = (f"{output}_{part}" for part in ("box", "logit", "probability"))
    graph.node.extend(
        [
            helper.make_node("Slice", [raw, first, scores, axis], [boxes]),
            helper.make_node("Slice", [raw, scores, end, axis], [logits]),
            helper.make_node("Sigmoid", [logits], [probabilities]),
            helper.make_node("Concat", [boxes, probabilities], [output], axis=2),
        ]
    )
    return copy


def _joins_of_levels(graph: onnx.GraphProto) -> set[str]:
    """The tensors in which box, objectness and classes of a level are joined; empty if unknown."""
    makers = {name: node for node in graph.node for name in node.output}
    levels = _maker_before(makers, graph.output[0].name, ("Cast", "Transpose"))
    if levels is None or levels.op_type != "Concat":
        return set()
    joins = [_maker_before(makers, name, ("Reshape", "Flatten")) for name in levels.input]
    known = {join.output[0] for join in joins if join is not None and _joins_parts(join)}
    return known if len(known) == len(joins) else set()


def _joins_parts(node: onnx.NodeProto) -> bool:
    return node.op_type == "Concat" and len(node.input) == HEAD_PARTS


def _maker_before(
    makers: dict[str, onnx.NodeProto], name: str, passed: tuple[str, ...]
) -> onnx.NodeProto | None:
    """The node that makes a tensor, before any of the kinds that are passed over."""
    node = makers.get(name)
    while node is not None and node.op_type in passed:
        node = makers.get(node.input[0])
    return node


def _set_output_aside(graph: onnx.GraphProto, suffix: str) -> tuple[str, str]:
    """Rename the output's tensor, so that a new last node can make the output.

    Returns:
        The tensor's new name, and the output's.
    """
    output = graph.output[0].name
    aside = f"{output}_{suffix}"
    for node in graph.node:
        node.input[:] = [aside if name == output else name for name in node.input]
        node.output[:] = [aside if name == output else name for name in node.output]
    return aside, output
