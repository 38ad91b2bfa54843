"""Helpers to read and copy ONNX graphs before editing them."""

from collections.abc import Iterable

import onnx


def copy_without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the recorded shapes of inner tensors, which an edit would invalidate."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    return copy


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The tensors stored in a graph, its initializers and Constant nodes, by name."""
    nodes = [node for node in graph.node if node.op_type == "Constant"]
    return {tensor.name: tensor for tensor in graph.initializer} | {
        node.output[0]: attribute.t
        for node in nodes
        for attribute in node.attribute
        if attribute.name == "value"
    }


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph these nodes instead of its own."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no output of the graph depends on."""
    wanted = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input) | _captured(node)
            kept.append(node)
    replace_nodes(graph, reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _captured(node: onnx.NodeProto) -> set[str]:
    """The names that the bodies of a node, of If or Loop, use; some may be their own."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = [each for body in bodies for each in body.node]
    return {name for each in inner for name in (*each.input, *_captured(each))}


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy whose outputs are these tensors, of any type and shape, without unused nodes."""
    copy = copy_without_shapes(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    drop_unused(copy.graph)
    return copy
