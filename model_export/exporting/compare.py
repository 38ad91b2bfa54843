"""Check that an exported graph computes what its PyTorch model computes."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from model_export.errors import ModelExportError
from model_export.graphs.network import Images, OnnxNetwork, Rows, load_network
from service.core.contract import ModelContract


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far raw outputs may differ, as fractions of the largest raw value (at least 1).

    Attributes:
        largest: Limit of the largest difference.
        mean: Limit of the mean difference. This is the sharper test: a wrong graph changes the
            mean, and a large rounding error in a single cell does not.
    """

    largest: float
    mean: float


# Measured differences on `sample_images`, largest and mean:
# - float32, sums in another order: 4e-6 and 2e-7 at most for the released nano; 3.7e-4 and 4.6e-6
#   for untrained networks, nano to L, which amplify rounding errors far more; 1.8e-4 and 1.1e-5 for
#   a network trained on only eight pictures, as these unusual images drive its activations far
#   below 0, where onnxruntime's sigmoid is not quite 0.
# - float16, which rounds each of a hundred layers to 11 bits: 6.3e-3 and 6.8e-4 for nano; 0.22 and
#   3.4e-3 for untrained networks.
# - a real fault is larger: 0.36 and 0.024 for nano with red and blue swapped.
FLOAT32_TOLERANCE: Final = Tolerance(largest=1e-3, mean=1e-4)
FLOAT16_TOLERANCE: Final = Tolerance(largest=0.3, mean=5e-3)

BATCH_SIZES: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far onnxruntime is from torch on one batch, in raw output values.

    Attributes:
        batch: Number of images.
        height: Height of the images in pixels.
        width: Width of the images in pixels.
        largest: Largest absolute difference.
        mean: Mean absolute difference.
        peak: Largest absolute raw value of torch.
    """

    batch: int
    height: int
    width: int
    largest: float
    mean: float
    peak: float

    def __str__(self) -> str:
        return (
            f"batch {self.batch} of {self.height}x{self.width}: onnxruntime and torch differ by at "
            f"most {self.largest:.2g}, on average {self.mean:.2g}, in raw values up to "
            f"{self.peak:.3g}"
        )

    def within(self, tolerance: Tolerance) -> bool:
        """Whether both differences are within the tolerance; nan never is."""
        scale = max(1.0, self.peak)
        return self.largest <= tolerance.largest * scale and self.mean <= tolerance.mean * scale


def compare(
    graph: bytes, model: nn.Module, contract: ModelContract, tolerance: Tolerance
) -> list[Difference]:
    """Run a serialised graph and its model on the same images, for each kind of shape it accepts.

    Args:
        graph: The ONNX model.
        model: The PyTorch model that it was exported from, float32, in evaluation mode on the CPU.
        contract: The contract of the graph.
        tolerance: How far the outputs may differ.

    Returns:
        One difference for each batch size, at each of two image sizes if the size is dynamic.

    Raises:
        ModelExportError: The outputs differ by more than the tolerance, or the graph's output does
            not have the shape that the contract promises.
    """
    network = load_network(graph, contract.input.value_range)
    differences = [
        _difference(network, model, contract, sample_images(batch, height, width))
        for height, width in _sizes(contract)
        for batch in BATCH_SIZES
    ]
    for difference in differences:
        if not difference.within(tolerance):
            raise ModelExportError(
                f"{difference}; the tolerance is {tolerance.largest:g} and {tolerance.mean:g} of "
                "the largest raw value, so no file was written"
            )
    return differences


def sample_images(batch: int, height: int, width: int) -> Images:
    """Blocks of random colours with noise added: (batch, height, width, 3) uint8.

    A network responds to both scales; constant images would hide shifted or swapped axes.
    """
    random = np.random.default_rng(batch)
    blocks = random.integers(0, 224, (batch, height // 32, width // 32, 3), dtype=np.uint8)
    noise = random.integers(0, 32, (batch, height, width, 3), dtype=np.uint8)
    return blocks.repeat(32, axis=1).repeat(32, axis=2) + noise


def _sizes(contract: ModelContract) -> list[tuple[int, int]]:
    """(height, width) to compare at: the usual size and, if the size is dynamic, another one."""
    height, width = contract.input.height, contract.input.width
    if not contract.input.dynamic_size:
        return [(height, width)]
    largest_stride = contract.strides[-1]
    other = max(1, height // largest_stride // 2) * largest_stride
    return [(height, width), (other, width + largest_stride)]


def _difference(
    network: OnnxNetwork, model: nn.Module, contract: ModelContract, images: Images
) -> Difference:
    batch, height, width, _ = images.shape
    found = network.run(images)
    promised = (batch, contract.num_cells(height, width), contract.output_channels)
    if found.shape != promised:
        raise ModelExportError(f"the graph's output is {found.shape}, and not {promised}")
    expected = _run_torch(model, images)
    apart = np.abs(found - expected)
    peak = float(np.abs(expected).max())
    return Difference(batch, height, width, float(apart.max()), float(apart.mean()), peak)


def _run_torch(model: nn.Module, images: Images) -> Rows:
    """(N, H, W, 3) uint8 images to raw rows (N, A, 5 + C) float32."""
    planes = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        rows: Rows = model(planes).numpy()
    return rows
