"""The model file that the peers run, made from any file with a contract.

People serve YOLOX files as its exporter writes them: float32 planes of one size go in, sigmoids are
inside, and the batch is open. A file of another form is rewritten to that one. ONNX Runtime must
give the same rows for both before anything is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.peers.inputs.graph_input import take_planes
from benchmarks.peers.inputs.graph_output import (
    BOX_VALUES,
    give_float32,
    put_sigmoid_at_end,
    put_sigmoids_into_head,
)
from benchmarks.peers.inputs.preparing import read_contract
from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes
from model_export.graphs.network import load_network
from model_export.graphs.onnx_file import save_with_contract
from model_export.graphs.open_axes import open_batch_axis
from model_export.graphs.prove_axes import largest_difference
from model_export.graphs.simplify import TOLERANCE
from service.core.contract import InputSpec, ModelContract
from service.core.input_tensor import pack_images

Images = NDArray[np.uint8]
Rows = NDArray[np.floating[Any]]
Network = Callable[[Images], Rows]
Rewrite = Callable[[onnx.ModelProto], onnx.ModelProto | None]

# Side of the coloured squares in the pictures that both graphs run on, in pixels.
SQUARE: Final = 32
PICTURES: Final = 3


@dataclass(frozen=True, slots=True)
class PeersModel:
    """The model that the peers run.

    Attributes:
        path: The file; its contract describes it.
        contract: That contract.
        changes: A phrase for each thing that differs from the original.
        difference: Largest difference of a row's value from the original's, relative above 1.
    """

    path: Path
    contract: ModelContract
    changes: tuple[str, ...]
    difference: float


def make_peers_model(model: Path, output: Path) -> PeersModel:
    """Write a model in the form that the peers take, once it proves to give the same rows.

    That form takes (N, 3, height, width) float32 of the model's usual size, for any N, and gives
    (N, A, 5 + C) float32 whose scores are probabilities. Colour order, value range, padding,
    strides and box coding stay the model's, and are up to the peers' pre- and postprocessing.

    Args:
        model: An ONNX file with a contract.
        output: The file to write.

    Raises:
        ModelExportError: The file cannot be read, or no rewritten graph gives the same rows.
    """
    contract, source = read_contract(model), onnx.load(model)
    promised = _peers_contract(contract)
    images = _pictures(contract.input)
    rows = _run_singly(_load(source, contract), contract, images)
    tolerance, expected = TOLERANCE[rows.dtype.name], _probabilities(rows, contract)
    problem = ""
    for rewrite in _score_rewrites(contract):
        graph = _rewritten(source, contract, rewrite)
        if graph is not None:
            difference, problem = _compare(graph, promised, images, expected)
            if difference <= tolerance:
                save_with_contract(graph, promised, output)
                return PeersModel(output, promised, _changes(contract), difference)
    raise ModelExportError(f"{model} cannot be given the form that the peers take: {problem}")


def _peers_contract(contract: ModelContract) -> ModelContract:
    one_size = replace(contract.input, dynamic_size=False, least_side=None)
    spec = replace(one_size, batch=None, layout="NCHW", dtype="float32")
    return replace(contract, input=spec, score_activation="probabilities")


def _changes(contract: ModelContract) -> tuple[str, ...]:
    spec = contract.input
    changes = (
        (spec.dtype != "float32", f"float32 instead of {spec.dtype}"),
        (spec.layout != "NCHW", f"NCHW instead of {spec.layout}"),
        (spec.batch is not None, f"any batch instead of {spec.batch}"),
        (spec.dynamic_size, "one size instead of any"),
        (contract.score_activation == "logits", "sigmoids inside"),
    )
    return tuple(text for is_change, text in changes if is_change)


def _score_rewrites(contract: ModelContract) -> Sequence[Rewrite]:
    """Ways to probabilities, the quickest first."""
    if contract.score_activation == "probabilities":
        return (copy_without_shapes,)
    return put_sigmoids_into_head, put_sigmoid_at_end


def _rewritten(
    source: onnx.ModelProto, contract: ModelContract, rewrite_scores: Rewrite
) -> onnx.ModelProto | None:
    spec = contract.input
    model = source if spec.batch is None else open_batch_axis(source, spec.name, spec.batch)
    with_probabilities = rewrite_scores(give_float32(model))
    if with_probabilities is None:
        return None
    copy = take_planes(with_probabilities, spec)
    cells = contract.num_cells(spec.height, spec.width)
    (image,) = (value for value in copy.graph.input if value.name == spec.name)
    _declare(image, ("batch", 3, spec.height, spec.width))
    _declare(copy.graph.output[0], ("batch", cells, contract.output_channels))
    return copy


def _declare(value: onnx.ValueInfoProto, shape: Sequence[int | str]) -> None:
    value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))


def _pictures(spec: InputSpec) -> Images:
    """(3, H, W, 3) uint8: squares of random colours under noise, on both of which rows depend."""
    rng = np.random.default_rng(3)
    rows, columns = -(-spec.height // SQUARE), -(-spec.width // SQUARE)
    squares = rng.integers(0, 224, (PICTURES, rows, columns, 3), dtype=np.uint8)
    large = squares.repeat(SQUARE, axis=1).repeat(SQUARE, axis=2)[:, : spec.height, : spec.width]
    return large + rng.integers(0, 32, large.shape, dtype=np.uint8)


def _probabilities(rows: Rows, contract: ModelContract) -> Rows:
    """The same rows with probabilities for scores."""
    if contract.score_activation == "probabilities":
        return rows
    scores = np.exp(-np.logaddexp(0, -rows[..., BOX_VALUES:].astype(np.float64)))
    return np.concatenate([rows[..., :BOX_VALUES], scores.astype(rows.dtype)], axis=-1)


def _compare(
    model: onnx.ModelProto, contract: ModelContract, images: Images, expected: Rows
) -> tuple[float, str]:
    """How far a graph's rows are from those expected, and how to say so if that is too far.

    The images run one by one and all at once.
    """
    try:
        network = _load(model, contract)
        found = (_run_singly(network, contract, images), network(images))
    except ModelExportError as error:
        return float("inf"), str(error)
    for rows in found:
        if rows.shape != expected.shape:
            return float("inf"), f"its rows would be {rows.shape}, and not {expected.shape}"
    difference = max(largest_difference(rows, expected) for rows in found)
    return difference, f"its rows would differ by {difference:.1e}"


def _run_singly(network: Network, contract: ModelContract, images: Images) -> Rows:
    """Rows of each image alone, which is repeated as often as a fixed batch demands."""
    times = contract.input.batch or 1
    return np.concatenate([network(image[None].repeat(times, axis=0))[:1] for image in images])


def _load(model: onnx.ModelProto, contract: ModelContract) -> Network:
    spec = contract.input
    session = load_network(model.SerializeToString(), spec.value_range).session

    def network(images: Images) -> Rows:
        try:
            (rows,) = session.run(None, {spec.name: pack_images(images, spec)})
        except Exception as error:  # onnxruntime's errors share no other base class
            raise ModelExportError(f"it fails on {images.shape}: {error}") from error
        return np.asarray(rows)

    return network
