"""Tiny YOLOX-shaped ONNX models whose answer can be predicted from the picture.

Each cell looks only at its own square of pixels, through its mean colour:
- objectness logit = `objectness_logit` + 10 x brightness (0 black, 1 white), so that with the
  default of -5 a white cell is an object (0.993) and a black one is not (0.007);
- class c responds to channel c % 3, so that a pure first-channel cell is class 0, and so on;
- the box is centred on the cell and two strides wide and high when the cell is grey, and moves
  and grows a little with the colour.
"""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
# The objectness of a grey cell is then 0.011.
CALM_LOGIT = -9.0
_ELEMENT = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
}


def tiny_yolox_model(
    *,
    num_classes: int = 3,
    height: int = 64,
    width: int = 64,
    batch: int | None = None,
    dynamic_size: bool = False,
    dtype: Literal["float32", "uint8", "float16"] = "float32",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    activation: Literal["logits", "probabilities"] = "logits",
    decoded: bool = False,
    merged: bool = True,
    objectness_logit: float = -5.0,
) -> onnx.ModelProto:
    """An ONNX model from `images` (pixels 0-255) to `output`, (N, A, 5 + C).

    Args:
        num_classes: C.
        height: Network height in pixels; unused with `dynamic_size`.
        width: Network width in pixels; unused with `dynamic_size`.
        batch: The only batch size, also frozen into the Reshape nodes, or None for any.
        dynamic_size: Leave height and width open.
        dtype: Type of the input; the output is float16 for float16, else float32.
        layout: Order of the input's axes.
        activation: `probabilities` puts a sigmoid on objectness and classes.
        decoded: Boxes come as cx, cy, w, h in network pixels; needs a fixed size.
        merged: False leaves one output (N, 5 + C, H / s, W / s) per level.
        objectness_logit: Objectness logit of a black cell.
    """
    size: tuple[int | str, int | str] = ("height", "width") if dynamic_size else (height, width)
    shape = (3, *size) if layout == "NCHW" else (*size, 3)
    image = helper.make_tensor_value_info(
        "images", _ELEMENT[dtype], ["batch" if batch is None else batch, *shape]
    )
    element = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    weight, bias = _weights(num_classes, objectness_logit)
    initializers = [_constant("weight", weight), _constant("bias", bias)]
    nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]))
    for stride in STRIDES:
        nodes += _level(nodes[0 if layout == "NCHW" else 1].output[0], stride, activation)
    if merged:
        frozen = np.array([batch or 0, 5 + num_classes, -1])
        initializers.append(_constant("rows_shape", frozen))
        nodes += _merge("raw" if decoded else "result")
    if decoded:
        initializers += _grid(height, width)
        nodes += _decode()
    results = ["result"] if merged else [f"level{stride}" for stride in STRIDES]
    names = ["output"] if merged else [f"output{stride}" for stride in STRIDES]
    outputs = [_result_info(name, element, batch, num_classes, merged=merged) for name in names]
    nodes += [
        helper.make_node("Cast", [result], [name], to=element)
        for result, name in zip(results, names, strict=True)
    ]
    graph = helper.make_graph(nodes, "tiny-yolox", [image], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)


def calm_yolox_model(**facts: Any) -> onnx.ModelProto:
    """A tiny model that finds nothing on the grey of letterboxes, as good models do."""
    return tiny_yolox_model(**{"objectness_logit": CALM_LOGIT} | facts)


def _weights(
    num_classes: int, objectness_logit: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (5 + C, 3, 1, 1) and bias (5 + C,) that turn a mean colour (0-1) into a raw row."""
    boxes = [[0.2, -0.2, 0.0], [0.0, 0.2, -0.2], [0.3, 0.0, -0.3], [0.0, -0.3, 0.3]]
    objectness = [[10 / 3] * 3]
    classes = [
        [8.0 if channel == c % 3 else 0.0 for channel in range(3)] for c in range(num_classes)
    ]
    weight = np.array(boxes + objectness + classes, np.float32)
    bias = [0.5, 0.5, np.log(2), np.log(2), objectness_logit]
    bias += [-4.0 - c // 3 for c in range(num_classes)]
    return weight[:, :, None, None], np.array(bias, np.float32)


def _level(planes: str, stride: int, activation: str) -> list[onnx.NodeProto]:
    """Nodes from planes (N, 3, H, W) to `level<stride>` (N, 5 + C, H / stride, W / stride)."""
    mean, colour, logits = f"mean{stride}", f"colour{stride}", f"logits{stride}"
    level = f"level{stride}"
    window = [stride, stride]
    nodes = [
        helper.make_node("AveragePool", [planes], [mean], kernel_shape=window, strides=window),
        helper.make_node("Mul", [mean, f"white{stride}"], [colour]),
        helper.make_node("Conv", [colour, "weight", "bias"], [logits]),
    ]
    white = numpy_helper.from_array(np.array(1 / 255, np.float32))
    nodes.insert(0, helper.make_node("Constant", [], [f"white{stride}"], value=white))
    if activation == "logits":
        return [*nodes, helper.make_node("Identity", [logits], [level])]
    box, scores, probabilities = f"box{stride}", f"scores{stride}", f"probabilities{stride}"
    return [
        *nodes,
        *_slice(logits, box, 0, 4, axis=1),
        *_slice(logits, scores, 4, 2**31, axis=1),
        helper.make_node("Sigmoid", [scores], [probabilities]),
        helper.make_node("Concat", [box, probabilities], [level], axis=1),
    ]


def _merge(name: str) -> list[onnx.NodeProto]:
    """Nodes from the three levels to `name`, (N, A, 5 + C)."""
    rows = [f"rows{stride}" for stride in STRIDES]
    return [
        *(
            helper.make_node("Reshape", [f"level{stride}", "rows_shape"], [f"rows{stride}"])
            for stride in STRIDES
        ),
        helper.make_node("Concat", rows, ["columns"], axis=2),
        helper.make_node("Transpose", ["columns"], [name], perm=[0, 2, 1]),
    ]


def _decode() -> list[onnx.NodeProto]:
    """Nodes from `raw` to `result`, which do what YOLOX's `decode_in_inference` does."""
    return [
        *_slice("raw", "raw_xy", 0, 2, axis=2),
        *_slice("raw", "raw_wh", 2, 4, axis=2),
        *_slice("raw", "raw_scores", 4, 2**31, axis=2),
        helper.make_node("Add", ["raw_xy", "grid"], ["cells_xy"]),
        helper.make_node("Mul", ["cells_xy", "stride"], ["xy"]),
        helper.make_node("Exp", ["raw_wh"], ["cells_wh"]),
        helper.make_node("Mul", ["cells_wh", "stride"], ["wh"]),
        helper.make_node("Concat", ["xy", "wh", "raw_scores"], ["result"], axis=2),
    ]


def _grid(height: int, width: int) -> list[onnx.TensorProto]:
    """The constants `grid` (1, A, 2), columns and rows, and `stride` (1, A, 1)."""
    cells, strides = [], []
    for stride in STRIDES:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return [
        _constant("grid", np.concatenate(cells)[None].astype(np.float32)),
        _constant("stride", np.concatenate(strides)[None].astype(np.float32)),
    ]


def _slice(source: str, target: str, start: int, end: int, *, axis: int) -> list[onnx.NodeProto]:
    names = [f"{target}_{part}" for part in ("start", "end", "axis")]
    bounds = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([value])))
        for name, value in zip(names, (start, end, axis), strict=True)
    ]
    return [*bounds, helper.make_node("Slice", [source, *names], [target])]


def _result_info(
    name: str, element: int, batch: int | None, num_classes: int, *, merged: bool
) -> onnx.ValueInfoProto:
    first = "batch" if batch is None else batch
    rest = [None, 5 + num_classes] if merged else [5 + num_classes, None, None]
    return helper.make_tensor_value_info(name, element, [first, *rest])


def _constant(name: str, value: NDArray[np.generic]) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def takers_of_input(model: onnx.ModelProto) -> set[str]:
    """The types of the operators that read the image tensor."""
    name = model.graph.input[0].name
    return {node.op_type for node in model.graph.node if name in node.input}
