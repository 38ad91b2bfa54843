"""The pixel values that a network takes, and the nodes that make them from plain pixels."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes
from model_export.graphs.network import ImageInput
from service.core.contract import ColorOrder

Images = NDArray[np.uint8]
Triple = tuple[float, float, float]

PLAIN_RANGE: Final = (0.0, 255.0)
NO_MEAN: Final[Triple] = (0.0, 0.0, 0.0)
NO_STD: Final[Triple] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class PixelValues:
    """How a network's input follows from pixels of 0 to 255.

    A pixel is scaled linearly to `value_range`; then its channel's mean is subtracted, and the
    result divided by the channel's standard deviation.

    Attributes:
        color_order: Order of the channels.
        value_range: The values of pixels 0 and 255 before mean and deviation apply.
        mean: Mean of each channel, in the order of `color_order` and the units of `value_range`.
        std: Standard deviation of each channel, likewise.

    Raises:
        ModelExportError: A standard deviation is not positive, or the range does not ascend.
    """

    color_order: ColorOrder = "BGR"
    value_range: tuple[float, float] = PLAIN_RANGE
    mean: Triple = NO_MEAN
    std: Triple = NO_STD

    def __post_init__(self) -> None:
        numbers = (*self.value_range, *self.mean, *self.std)
        if not np.isfinite(numbers).all() or min(self.std) <= 0:
            raise ModelExportError("mean and std must be finite numbers, and std above 0")
        if self.value_range[0] >= self.value_range[1]:
            raise ModelExportError("the value range must ascend, such as 0 1")

    @property
    def is_plain(self) -> bool:
        """Whether the network takes the pixels as they are: BGR, 0 to 255."""
        return self.color_order == "BGR" and not self.is_scaled

    @property
    def is_scaled(self) -> bool:
        """Whether the values differ from those of the pixels, in any order of the channels."""
        return self.value_range != PLAIN_RANGE or self.is_normalised

    @property
    def is_normalised(self) -> bool:
        """Whether a mean or a standard deviation applies."""
        return (self.mean, self.std) != (NO_MEAN, NO_STD)

    @property
    def scale(self) -> NDArray[np.float32]:
        """(3,) float32: the factor of each channel's pixels."""
        low, high = self.value_range
        return np.asarray((high - low) / 255 / np.array(self.std), np.float32)

    @property
    def shift(self) -> NDArray[np.float32]:
        """(3,) float32: the value of a black pixel's channels."""
        low, _ = self.value_range
        return np.asarray((low - np.array(self.mean)) / np.array(self.std), np.float32)

    def __str__(self) -> str:
        mean, std = (" ".join(f"{n:g}" for n in numbers) for numbers in (self.mean, self.std))
        less = f", less mean {mean}" if self.mean != NO_MEAN else ""
        return f"{self._range}{less}" + (f", by std {std}" if self.std != NO_STD else "")

    @property
    def _range(self) -> str:
        low, high = self.value_range
        return f"{self.color_order} {low:g} to {high:g}"

    def of(self, images: Images, image: ImageInput) -> NDArray[Any]:
        """Make a graph's input tensor.

        Args:
            images: (N, H, W, 3) uint8, BGR.
            image: The input, which says its layout and dtype.
        """
        pixels = images[..., ::-1] if self.color_order == "RGB" else images
        values = pixels * self.scale + self.shift if self.is_scaled else pixels
        values = values.transpose(0, 3, 1, 2) if image.layout == "NCHW" else values
        return np.ascontiguousarray(values, dtype=image.dtype)


# Pixels of release 0.1.0 of YOLOX, and of its `--legacy`: the mean and deviation of ImageNet.
LEGACY: Final = PixelValues("RGB", (0.0, 1.0), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def take_plain_pixels(
    model: onnx.ModelProto, image: ImageInput, values: PixelValues
) -> onnx.ModelProto:
    """A copy of a model that takes BGR pixels of 0 to 255, and makes its own values from them.

    The input keeps its name, its layout and its type.

    Raises:
        ModelExportError: The graph takes bytes, which cannot hold these values.
    """
    if values.is_plain:
        return model
    if image.dtype == "uint8" and values.is_scaled:
        raise ModelExportError("the input is uint8, so its values are 0 to 255 without mean or std")
    copy = copy_without_shapes(model)
    graph = copy.graph
    made = f"{image.name}_values"
    for node in graph.node:
        node.input[:] = [made if name == image.name else name for name in node.input]
    nodes, tensors = _nodes(image, values, made)
    kept = [*graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    graph.initializer.extend(tensors)
    return copy


def _nodes(
    image: ImageInput, values: PixelValues, made: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes from the input to the values, and their constants."""
    nodes, tensors, source = [], [], image.name
    axis, shape = (1, (1, 3, 1, 1)) if image.layout == "NCHW" else (3, (1, 1, 1, 3))
    steps: list[tuple[str, NDArray[Any]]] = []
    if values.color_order == "RGB":
        steps.append(("Gather", np.array([2, 1, 0])))
    if values.is_scaled:
        numbers = (("Mul", values.scale), ("Add", values.shift))
        steps += [(kind, each.reshape(shape).astype(image.dtype)) for kind, each in numbers]
    for place, (kind, constant) in enumerate(steps):
        target = made if place == len(steps) - 1 else f"{made}_{kind.lower()}ed"
        options: dict[str, Any] = {"axis": axis} if kind == "Gather" else {}
        tensors.append(numpy_helper.from_array(constant, f"{target}_by"))
        nodes.append(helper.make_node(kind, [source, f"{target}_by"], [target], **options))
        source = target
    return nodes, tensors
