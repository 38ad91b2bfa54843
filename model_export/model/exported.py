"""Read the weights of a model that `export` wrote, to train it further; no torch is needed."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float32]

# `export` puts the first before the names of weights, and the second after those in float16.
PREFIX: Final = "model."
HALF_SUFFIX: Final = "_float16"
# Folding leaves a convolution of a block with a bias, and no batch norm.
CONV_WEIGHT, CONV_BIAS = ".conv.weight", ".conv.bias"
# Epsilon of the batch norms: with variance 1 - epsilon they only add their bias.
EPSILON: Final = 1e-3
# The kernel of a Focus and its convolution, folded into one.
FOCUS_KERNEL: Final = (3, 6, 6)


def read_exported(path: Path) -> dict[str, Floats]:
    """Read the weights of an exported model under the names that they have in training.

    The batch norms were folded into the convolutions. They come back as norms that only add a
    bias, so the network computes the same function, but they have no statistics of their own.

    Args:
        path: An ONNX file of `export`, whole, `--half` or `--compact`.

    Returns:
        Name -> weights; empty if the file has none under names that `export` gives.
    """
    graph = onnx.load(path).graph
    stored = {tensor.name.removesuffix(HALF_SUFFIX): tensor for tensor in graph.initializer}
    weights = {
        name.removeprefix(PREFIX): np.array(numpy_helper.to_array(tensor), dtype=np.float32)
        for name, tensor in stored.items()
        if name.startswith(PREFIX)
    }
    return dict(_unfolded(weights | dict(_lost_biases(graph.node, weights))))


def _lost_biases(
    nodes: Iterable[onnx.NodeProto], weights: Mapping[str, Floats]
) -> Iterator[tuple[str, Floats]]:
    """Biases that are not stored under their names: equal tensors are stored once, zeros never."""
    for node in nodes:
        if node.op_type != "Conv":
            continue
        kernel, *bias = (
            name.removesuffix(HALF_SUFFIX).removeprefix(PREFIX) for name in node.input[1:]
        )
        own = f"{kernel.removesuffix('weight')}bias"
        if not kernel.endswith(".weight") or kernel not in weights or own in weights:
            continue
        if not bias:
            yield own, np.zeros(len(weights[kernel]), dtype=np.float32)
        elif bias[0] in weights:
            yield own, weights[bias[0]]


def _unfolded(weights: Mapping[str, Floats]) -> Iterator[tuple[str, Floats]]:
    for name, values in weights.items():
        if name.endswith(CONV_WEIGHT) and values.shape[1:] == FOCUS_KERNEL:
            yield name.replace(CONV_WEIGHT, f".conv{CONV_WEIGHT}"), _focus_kernel(values)
        elif name.endswith(CONV_BIAS):
            weight = weights.get(name.replace(CONV_BIAS, CONV_WEIGHT))
            focus = weight is not None and weight.shape[1:] == FOCUS_KERNEL
            yield from _bias_alone(name.replace(CONV_BIAS, ".conv.bn" if focus else ".bn"), values)
        else:
            yield name, values


def _focus_kernel(kernel: Floats) -> Floats:
    """`(C, 3, 6, 6)` as the `(C, 12, 3, 3)` of a Focus; see `exporting.fold`."""
    count = len(kernel)
    # Axes: output, channel, row in the 3x3, corner row, column in the 3x3, corner column.
    parts = kernel.reshape(count, 3, 3, 2, 3, 2).transpose(0, 5, 3, 1, 2, 4)
    return np.ascontiguousarray(parts.reshape(count, 12, 3, 3))


def _bias_alone(norm: str, bias: Floats) -> Iterator[tuple[str, Floats]]:
    """The tensors of a batch norm that only adds a bias."""
    yield f"{norm}.weight", np.ones_like(bias)
    yield f"{norm}.bias", bias
    yield f"{norm}.running_mean", np.zeros_like(bias)
    yield f"{norm}.running_var", np.full_like(bias, 1 - EPSILON)
