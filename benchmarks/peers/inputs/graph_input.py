"""How a graph takes images, rewritten to float32 planes: the form of most YOLOX files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import TensorProto, helper

from model_export.graphs.edit import copy_without_shapes
from service.core.contract import InputSpec, Layout

TO_NHWC: Final = [0, 2, 3, 1]
TO_NCHW: Final = [0, 3, 1, 2]


def take_planes(model: onnx.ModelProto, spec: InputSpec) -> onnx.ModelProto:
    """A copy that takes (N, 3, H, W) float32.

    The casts and transpositions at the start are dropped where the new input makes them pointless.
    Where the graph needs another type or layout even so, new ones make it from the planes.

    Args:
        model: A graph that takes images as `spec` says.
        spec: Its input so far.
    """
    copy = copy_without_shapes(model)
    graph = copy.graph
    (given,) = (value for value in graph.input if value.name == spec.name)
    given_as = _Form(given.type.tensor_type.elem_type, spec.layout)
    dropped, form = _pointless(_first_steps(graph, spec.name), given_as)
    start = dropped[-1].output[0] if dropped else spec.name
    gone = {name for node in dropped for name in node.output}
    nodes = [node for node in graph.node if not gone & set(node.output)]
    adapters = _adapters(spec.name, form)
    taken = adapters[-1].output[0] if adapters else spec.name
    for node in nodes:
        node.input[:] = [taken if name == start else name for name in node.input]
    del graph.node[:]
    graph.node.extend([*adapters, *nodes])
    shape = ["batch" if spec.batch is None else spec.batch, 3, "height", "width"]
    given.CopyFrom(helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, shape))
    return copy


@dataclass(frozen=True, slots=True)
class _Form:
    """The images at one place of a graph: ONNX's number of their element type, and their layout."""

    element: int
    layout: Layout

    @property
    def distance(self) -> int:
        """How many nodes it takes to make this from float32 planes."""
        return (self.element != TensorProto.FLOAT) + (self.layout != "NCHW")

    def after(self, node: onnx.NodeProto) -> "_Form | None":
        """The input after a cast or a transposition; None if that is not a batch of images."""
        values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Cast":
            return _Form(values["to"], self.layout)
        turned = (self.layout, values.get("perm"))
        if turned == ("NHWC", TO_NCHW):
            return _Form(self.element, "NCHW")
        return _Form(self.element, "NHWC") if turned == ("NCHW", TO_NHWC) else None


def _first_steps(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    """The casts and transpositions that images go through before any other node takes them."""
    found: list[onnx.NodeProto] = []
    while True:
        takers = [node for node in graph.node if name in node.input]
        if len(takers) != 1 or takers[0].op_type not in ("Cast", "Transpose"):
            return found
        found.append(takers[0])
        name = takers[0].output[0]


def _pointless(
    steps: Sequence[onnx.NodeProto], form: _Form
) -> tuple[Sequence[onnx.NodeProto], _Form]:
    """The steps that float32 planes can skip, and the form of the images behind those."""
    best, best_form = 0, form
    for count, node in enumerate(steps, 1):
        after = form.after(node)
        if after is None:
            break
        form = after
        if form.distance < best_form.distance:
            best, best_form = count, form
    return steps[:best], best_form


def _adapters(name: str, form: _Form) -> list[onnx.NodeProto]:
    """The nodes that make a form of the float32 planes in the tensor `name`."""
    nodes = []
    if form.layout != "NCHW":
        nodes.append(helper.make_node("Transpose", [name], [f"{name}_turned"], perm=TO_NHWC))
        name = f"{name}_turned"
    if form.element != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=form.element))
    return nodes
