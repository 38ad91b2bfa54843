"""Export a trained model to ONNX, compare it with PyTorch, then write the file."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from onnxscript import opset18 as opset
from torch import Tensor, nn
from torch.export import Dim

from model_export.errors import ModelExportError
from model_export.exporting.compare import FLOAT16_TOLERANCE, FLOAT32_TOLERANCE, Difference, compare
from model_export.exporting.fold import folded
from model_export.graphs.half_weights import compacted
from model_export.graphs.onnx_file import save_with_contract
from model_export.graphs.pixel_values import PixelValues
from model_export.model.yolox import YOLOX
from service.core.contract import InputDtype, Layout, ModelContract

# Opset 19 has a newer Resize, which onnxruntime 1.24 still moves from CUDA to the CPU (onnx issue
# 7747, onnxruntime pull request 27415). No operator here gains anything from a later opset.
OPSET: Final = opset.version
OUTPUT_NAME: Final = "output"

TORCH_DTYPES: Final[dict[InputDtype, torch.dtype]] = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
}


def export(
    model: YOLOX,
    contract: ModelContract,
    path: Path,
    *,
    half: bool = False,
    compact: bool = False,
    values: PixelValues | None = None,
) -> list[Difference]:
    """Write a model as an ONNX file with its contract, if onnxruntime and torch agree on it.

    Args:
        model: The model, on any device, in any mode and dtype; it is not changed.
        contract: The contract to write; the graph is built to fulfil it.
        path: The file to write.
        half: Store the weights and compute in float16; the output is still float32.
        compact: Store the weights in float16 and compute in float32.
        values: The pixel values that the model was trained with; the graph makes them from BGR
            pixels of 0 to 255. None for these pixels themselves, as YOLOX takes them.

    Returns:
        The difference between onnxruntime and torch on each batch that was compared.

    Raises:
        ModelExportError: This exporter cannot fulfil the contract, the outputs of onnxruntime and
            torch differ, or the file cannot be written. No file is then written.
    """
    _check_promise(contract)
    reference = copy.deepcopy(model).cpu().float().eval()
    values = values or PixelValues()
    dtype = torch.float16 if half else torch.float32
    network = _to_onnx(_taking(folded(reference), values), contract, dtype)
    network = compacted(network) if compact else network
    tolerance = FLOAT16_TOLERANCE if half or compact else FLOAT32_TOLERANCE
    taking = _taking(reference, values).eval()
    differences = compare(network.SerializeToString(), taking, contract, tolerance)
    try:
        save_with_contract(network, contract, path)
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error}") from error
    return differences


class ValuesOfPixels(nn.Module):
    """A model with plain pixels as input: it makes the model's own values from them.

    Args:
        model: Maps `(N, 3, H, W)` of these values to raw rows.
        values: The values that it was trained with.
    """

    scale: Tensor
    shift: Tensor
    order: Tensor

    def __init__(self, model: nn.Module, values: PixelValues) -> None:
        super().__init__()
        self.model = model
        self.is_reversed = values.color_order == "RGB"
        self.register_buffer("scale", torch.from_numpy(values.scale).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.from_numpy(values.shift).view(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 1, 0]))

    def forward(self, planes: Tensor) -> Tensor:
        """`(N, 3, H, W)` BGR pixels of 0 to 255 to raw rows `(N, A, 5 + C)`."""
        ordered = planes.index_select(1, self.order) if self.is_reversed else planes
        rows: Tensor = self.model(ordered * self.scale + self.shift)
        return rows


def _taking(model: nn.Module, values: PixelValues) -> nn.Module:
    return model if values.is_plain else ValuesOfPixels(model, values)


class PixelModel(nn.Module):
    """A model with the server's input layout and dtype, and float32 output.

    Args:
        model: Maps `(N, 3, H, W)` of `dtype` to raw rows.
        layout: Order of the axes of the images.
        dtype: The dtype that the model computes in.
    """

    def __init__(self, model: nn.Module, layout: Layout, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model.to(dtype)
        self.layout = layout
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """`(N, H, W, 3)` or `(N, 3, H, W)` of any dtype to raw rows `(N, A, 5 + C)` float32."""
        # The Cast comes first: TensorRT accepts uint8 only as the input of a conversion.
        pixels = images.to(self.dtype)
        planes = pixels.permute(0, 3, 1, 2) if self.layout == "NHWC" else pixels
        rows: Tensor = self.model(planes)
        return rows.float()


def _check_promise(contract: ModelContract) -> None:
    image = contract.input
    promised = (image.batch, image.color_order, image.value_range, contract.score_activation)
    if promised != (None, "BGR", (0.0, 255.0), "logits") or contract.strides != (8, 16, 32):
        raise ModelExportError(
            "an exported model takes BGR images of 0-255 in batches of any size, and gives logits "
            "at strides 8, 16 and 32; the contract says otherwise"
        )


def _to_onnx(model: nn.Module, contract: ModelContract, dtype: torch.dtype) -> onnx.ModelProto:
    """The graph of a model, from one image tensor to one output."""
    image = contract.input
    program = PixelModel(model, image.layout, dtype).eval()
    with _quiet_exporter():
        exported = torch.onnx.export(
            program,
            (_example(contract),),
            dynamo=True,
            dynamic_shapes=({0: Dim("batch")},),
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
    """Example images for the exporter, which would fix a batch size of 1.

    The graph does not depend on their height and width, which `compare` verifies. Declaring those
    dynamic as well doubles the exporter's work for the same graph.
    """
    image = contract.input
    shape = (2, 64, 96, 3) if image.layout == "NHWC" else (2, 3, 64, 96)
    return torch.zeros(shape, dtype=TORCH_DTYPES[image.dtype])


def _keep_two_axes(levels: Any, _size: Any) -> Any:  # noqa: ANN401 - the exporter's symbols
    """Flatten `(N, 5 + C, rows, columns)` to `(N, 5 + C, cells)`, the only view in a YOLOX.

    This form spares the graph from computing the number of cells from its input's shape.
    """
    shape: Any = opset.Constant(value_ints=[0, 0, -1])
    return opset.Reshape(levels, shape)


def _tidy(network: onnx.ModelProto, contract: ModelContract) -> onnx.ModelProto:
    """Remove the exporter's metadata, which contains local file paths, and declare the axes."""
    graph = network.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")
    image = contract.input
    first = 1 if image.layout == "NHWC" else 2
    height, width, cells = (
        ("height", "width", "cells")
        if image.dynamic_size
        else (image.height, image.width, contract.num_cells(image.height, image.width))
    )
    _declare_axes(graph.input[0], {0: "batch", first: height, first + 1: width})
    _declare_axes(graph.output[0], {0: "batch", 1: cells})
    return network


def _declare_axes(tensor: onnx.ValueInfoProto, lengths: Mapping[int, int | str]) -> None:
    """Set axes of a tensor to a fixed length, or to a symbol if the length is a string."""
    for axis, length in lengths.items():
        place = tensor.type.tensor_type.shape.dim[axis]
        if isinstance(length, str):
            place.dim_param = length
        else:
            place.dim_value = length


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence messages of the exporter about itself, which a user cannot act on."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(_is_of_interest)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
            yield
    finally:
        logger.removeFilter(_is_of_interest)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """False for messages about torchvision, whose operators no model here uses."""
    return "torchvision is not installed" not in record.getMessage()
