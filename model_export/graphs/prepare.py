"""Take away what a graph does to images before its network, and what it does after its rows."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import shape_inference

from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes, drop_unused, with_outputs
from model_export.graphs.network import ImageInput, open_session

# Operators of preparation that keep an image's size.
KEEP_SIZE: Final = frozenset(
    {"Cast", "Transpose", "Mul", "Div", "Add", "Sub", "Gather", "Identity"}
)
RESIZES: Final = frozenset({"Resize", "Upsample"})
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "com.microsoft", "ai.onnx.ml"})
QUANTISED: Final = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"}
)
# Operators in the order of channels of one CPU's vectors.
ONE_CPU: Final = "com.microsoft.nchwc"
# Operators that the rows of all levels come out of.
JOINERS: Final = frozenset(
    {"Concat", "Transpose", "Reshape", "ScatterND", "Squeeze", "Cast", "Identity"}
)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether a graph computes with 8-bit integers."""
    return any(node.op_type in QUANTISED for node in model.graph.node)


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse a graph that is bound to one machine, or still as it was in training.

    Raises:
        ModelExportError: It is.
    """
    if any(node.domain == ONE_CPU for node in model.graph.node):
        raise ModelExportError(
            "ONNX Runtime has optimised this file for the CPU of one machine; adopt the file that "
            "it was made from"
        )
    for node in model.graph.node:
        modes = [each.i for each in node.attribute if each.name == "training_mode"]
        if node.op_type == "BatchNormalization" and any(modes):
            raise ModelExportError(
                "its BatchNormalization is in training mode; export the model after model.eval()"
            )


def foreign_operators(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes whose operators are a plugin's, which onnxruntime does not know."""
    local = {(each.domain, each.name) for each in model.functions}
    return [
        node
        for node in model.graph.node
        if node.domain not in STANDARD_DOMAINS and (node.domain, node.op_type) not in local
    ]


def without_foreign_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that ends where the operators of plugins begin; their inputs are its outputs."""
    foreign = foreign_operators(model)
    theirs = {name for node in foreign for name in node.output}
    made = {name for node in model.graph.node for name in node.output} - theirs
    inputs = dict.fromkeys(name for node in foreign for name in node.input if name in made)
    return with_outputs(model, inputs)


def without_resize(model: onnx.ModelProto, image: ImageInput) -> onnx.ModelProto | None:
    """A copy that takes images of the size to which the graph itself resizes them.

    Returns:
        None if the graph does not resize images before anything else.
    """
    resize = _first_resize(model.graph, image.name)
    if resize is None or image.height is None or image.width is None:
        return None
    side = _size_after(model, resize, image)
    if side is None:
        return None
    copy = copy_without_shapes(model)
    for node in copy.graph.node:
        node.input[:] = [
            resize.input[0] if name == resize.output[0] else name for name in node.input
        ]
    rows, columns = (2, 3) if image.layout == "NCHW" else (1, 2)
    for value in copy.graph.input:
        if value.name == image.name:
            axes = value.type.tensor_type.shape.dim
            axes[rows].dim_value, axes[columns].dim_value = side
    drop_unused(copy.graph)
    return copy


def _first_resize(graph: onnx.GraphProto, name: str) -> onnx.NodeProto | None:
    """The resize that an image goes through before any other node that changes its size."""
    while True:
        users = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(users) != 1:
            return None
        (user,) = users
        if user.op_type in RESIZES:
            return user if user.input[0] == name else None
        if user.op_type not in KEEP_SIZE:
            return None
        name = user.output[0]


def _size_after(
    model: onnx.ModelProto, resize: onnx.NodeProto, image: ImageInput
) -> tuple[int, int] | None:
    """(height, width) after the resize, by running the graph up to it."""
    session = open_session(with_outputs(model, resize.output[:1]).SerializeToString())
    given = (image.height or 1, image.width or 1)
    (after,) = session.run(None, {image.name: _zeros(image, given)})
    for rows, columns, colors in ((2, 3, 1), (1, 2, 3)):
        if after.ndim == 4 and after.shape[colors] == 3:
            return after.shape[rows], after.shape[columns]
    return None


def _zeros(image: ImageInput, size: tuple[int, int]) -> NDArray[Any]:
    """An input of zeros for images of this size."""
    batch = image.batch or 1
    shape = (batch, 3, *size) if image.layout == "NCHW" else (batch, *size, 3)
    return np.zeros(shape, image.dtype)


def inner_tables(
    model: onnx.ModelProto, image: ImageInput, size: tuple[int, int], table: tuple[int, int]
) -> list[str]:
    """Inner tensors whose shape is a table of this many rows and columns, in either order.

    They are in the order in which they are computed, at this size of the image.
    """
    fixed = copy_without_shapes(model)
    lengths = {"NCHW": (3, *size), "NHWC": (*size, 3)}[image.layout]
    for value in fixed.graph.input:
        if value.name == image.name:
            for axis, length in enumerate((image.batch or 1, *lengths)):
                value.type.tensor_type.shape.dim[axis].dim_value = length
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception:  # noqa: BLE001 - a graph that cannot be inferred has no known inner shapes
        return []
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }
    made = [name for node in fixed.graph.node for name in node.output if node.op_type in JOINERS]
    unknown = [name for name in made if not shapes.get(name) or 0 in shapes[name]]
    tables = [name for name in made if _is_table(shapes.get(name, []), image, table)]
    wanted = {*unknown, *tables}
    names = [name for name in made if name in wanted]
    return _tables_when_run(model, image, size, table, names)


def _tables_when_run(
    model: onnx.ModelProto,
    image: ImageInput,
    size: tuple[int, int],
    table: tuple[int, int],
    names: list[str],
) -> list[str]:
    """Those that are tables when the graph is run; inference does not find every shape."""
    if not names:
        return []
    session = open_session(with_outputs(model, names).SerializeToString())
    values = session.run(None, {image.name: _zeros(image, size)})
    found = [output.name for output in session.get_outputs()]
    return [
        name
        for name, value in zip(found, values, strict=True)
        if np.issubdtype(value.dtype, np.floating) and _is_table(value.shape, image, table)
    ]


def _is_table(lengths: Sequence[int], image: ImageInput, table: tuple[int, int]) -> bool:
    usual = len(lengths) == 3 and lengths[0] == (image.batch or 1)
    return usual and tuple(lengths[1:]) in (table, table[::-1])
