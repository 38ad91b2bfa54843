"""A trained model to an ONNX file that a server can trust: exported, compared, then written."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnxscript import opset18 as opset
from torch import Tensor, nn
from torch.export import Dim

from model_export.compare import FLOAT16_TOLERANCE, FLOAT32_TOLERANCE, Difference, compare
from model_export.errors import ModelExportError
from model_export.fold import folded
from model_export.model.yolox import YOLOX
from model_export.onnx_file import save_with_contract
from service.core.contract import InputDtype, Layout, ModelContract

# From 19 on there is a newer Resize, which onnxruntime 1.24 still moves from CUDA to the CPU (onnx
# issue 7747, onnxruntime pull request 27415); no operator here gains anything from a later opset.
OPSET: Final = opset.version
OUTPUT_NAME: Final = "output"

TORCH_DTYPES: Final[dict[InputDtype, torch.dtype]] = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
}


def export(
    model: YOLOX, contract: ModelContract, path: Path, *, half: bool = False
) -> list[Difference]:
    """Write a model as an ONNX file with its contract, if onnxruntime and torch agree on it.

    Args:
        model: Any device, mode and dtype; it stays as it is.
        contract: What the file is to promise; the graph is made to keep it.
        path: The file to write.
        half: Hold the weights and compute in float16; the output is float32 all the same.

    Returns:
        How far onnxruntime and torch were apart on each batch that was compared.

    Raises:
        ModelExportError: The contract promises what this exporter does not make, onnxruntime and
            torch differ, or the file cannot be written. There is then no file.
    """
    _check_promise(contract)
    reference = copy.deepcopy(model).cpu().float().eval()
    network = _to_onnx(reference, contract, torch.float16 if half else torch.float32)
    tolerance = FLOAT16_TOLERANCE if half else FLOAT32_TOLERANCE
    differences = compare(network.SerializeToString(), reference, contract, tolerance)
    try:
        save_with_contract(network, contract, path)
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error}") from error
    return differences


class PixelModel(nn.Module):
    """A model that takes images as a server has them and gives float32.

    Args:
        model: `(N, 3, H, W)` of `dtype` to raw rows.
        layout: Order of the axes of the images.
        dtype: What the model computes in.
    """

    def __init__(self, model: nn.Module, layout: Layout, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.layout = layout
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """`(N, H, W, 3)` or `(N, 3, H, W)` of any dtype to raw rows `(N, A, 5 + C)` float32."""
        # In this order the transpose moves the smallest elements.
        planes = images.permute(0, 3, 1, 2) if self.layout == "NHWC" else images
        rows: Tensor = self.model(planes.to(self.dtype))
        return rows.float()


def _check_promise(contract: ModelContract) -> None:
    image = contract.input
    promised = (image.batch, image.color_order, image.value_range, contract.score_activation)
    if promised != (None, "BGR", (0.0, 255.0), "logits") or contract.strides != (8, 16, 32):
        raise ModelExportError(
            "an exported model takes any batch of BGR images of 0-255 and gives logits at "
            "strides 8, 16 and 32; the contract says otherwise"
        )


def _to_onnx(reference: YOLOX, contract: ModelContract, dtype: torch.dtype) -> onnx.ModelProto:
    """The graph of a model, from one image tensor to one output."""
    image = contract.input
    program = PixelModel(folded(reference), image.layout, dtype).eval()
    with _quiet_exporter():
        exported = torch.onnx.export(
            program,
            (_example(contract),),
            dynamo=True,
            dynamic_shapes=(_dynamic_axes(contract),),
            input_names=[image.name],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            custom_translation_table={torch.ops.aten.view.default: _keep_two_axes},
            verbose=False,
        )
    if exported is None:
        raise ModelExportError("torch.onnx.export gave no model")
    return _tidy(exported.model_proto, contract)


def _example(contract: ModelContract) -> Tensor:
    """Any tensor of the contract's kind; axes of 1 and equal axes would be taken for fixed."""
    image = contract.input
    height, width = (96, 128) if image.dynamic_size else (image.height, image.width)
    shape = (2, height, width, 3) if image.layout == "NHWC" else (2, 3, height, width)
    return torch.zeros(shape, dtype=TORCH_DTYPES[image.dtype])


def _dynamic_axes(contract: ModelContract) -> dict[int, object]:
    """The axes of the input that stay open: the batch, and where promised height and width."""
    axes: dict[int, object] = {0: Dim("batch")}
    if contract.input.dynamic_size:
        height, width = (1, 2) if contract.input.layout == "NHWC" else (2, 3)
        stride = contract.strides[-1]
        axes |= {height: stride * Dim("rows"), width: stride * Dim("columns")}
    return axes


def _keep_two_axes(levels: Any, _size: Any) -> Any:  # noqa: ANN401 - the exporter's symbols
    """Flatten `(N, 5 + C, rows, columns)`, the one view in a YOLOX, to `(N, 5 + C, cells)`.

    Written so, the graph need not compute the number of cells from its input's shape.
    """
    shape: Any = opset.Constant(value_ints=[0, 0, -1])
    return opset.Reshape(levels, shape)


def _tidy(network: onnx.ModelProto, contract: ModelContract) -> onnx.ModelProto:
    """Drop the exporter's notes, which hold paths of this machine, and give axes plain names."""
    graph = network.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    names = (
        ("batch", "height", "width")
        if contract.input.layout == "NHWC"
        else ("batch", "", "height", "width")
    )
    _name_open_axes(graph.input[0], names)
    _name_open_axes(graph.output[0], ("batch", "cells"))
    return network


def _name_open_axes(tensor: onnx.ValueInfoProto, names: tuple[str, ...]) -> None:
    for axis, name in zip(tensor.type.tensor_type.shape.dim, names, strict=False):
        if axis.HasField("dim_param"):
            axis.dim_param = name


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of itself and a user can do nothing about."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(_is_of_interest)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether it is not about torchvision, whose operators no model here has."""
    return "torchvision is not installed" not in record.getMessage()
