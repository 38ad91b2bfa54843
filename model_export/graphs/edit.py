"""Helpers to read and copy ONNX graphs before editing them."""

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
