"""Verify a third-party YOLOX file and add the contract that it lacks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from model_export.checksum import short_sha256
from model_export.errors import ModelExportError
from model_export.graphs.network import OnnxNetwork, load_network
from model_export.graphs.onnx_file import save_with_contract
from model_export.graphs.probe import STRIDES, Probe, probe_network
from model_export.graphs.prove_axes import ProvenAxes, prove_axes
from model_export.graphs.simplify import Quickened, quicken
from service.core.contract import (
    METADATA_KEY,
    BoxCoding,
    ColorOrder,
    ContractError,
    InputSpec,
    ModelContract,
    Provenance,
    Recommended,
    ScoreActivation,
)


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """The facts and choices that the file itself does not state.

    Attributes:
        class_names: One name for each class, in order.
        name: The model's name; None makes it from the file's.
        version: The model's version; None takes the first 12 digits of the file's SHA-256.
        size: (height, width) in pixels for the axes that the graph leaves open.
        least_side: Minimum height and width in pixels, for a model of dynamic size; None for 32.
        score_activation: `auto` tells logits from probabilities by running the model.
        box_coding: How the four raw box values become a box.
        color_order: Order of the input's channels.
        value_range: The input values that pixel values 0 and 255 map to.
        recommended: Thresholds to prefer over the service's defaults.
        provenance: The model's origin.
        fixed_size: Leave the graph's height and width as they are, and promise no others.
        keep_graph: Leave the input's type and the operators as they are.
        force: Replace an existing contract and an existing output file.
    """

    class_names: tuple[str, ...]
    name: str | None = None
    version: str | None = None
    size: tuple[int, int] | None = None
    least_side: int | None = None
    score_activation: ScoreActivation | Literal["auto"] = "auto"
    box_coding: BoxCoding = "yolox"
    color_order: ColorOrder = "BGR"
    value_range: tuple[float, float] = (0.0, 255.0)
    recommended: Recommended = field(default_factory=Recommended)
    provenance: Provenance = field(default_factory=Provenance)
    fixed_size: bool = False
    keep_graph: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Adoption:
    """An adopted model's contract, and notes for the user."""

    contract: ModelContract
    notes: tuple[str, ...]


def default_name(source: Path) -> str:
    """The default model name of a file: `yolox-nano` for `yolox_nano.onnx`."""
    return source.stem.lower().replace("_", "-")


def adopt(source: Path, output: Path, request: AdoptRequest) -> Adoption:
    """Run a YOLOX ONNX file, and write a copy that carries a contract.

    A graph for one batch or image size is opened for any if its outputs provably stay the same;
    otherwise the contract states that size. The graph is also optimized, under the same condition.

    Raises:
        ModelExportError: The file is not what the request says, or cannot be read or written;
            then nothing is written.
    """
    if output.exists() and not request.force:
        raise ModelExportError(f"{output} exists; add --force to replace it")
    version = request.version or short_sha256(source)
    network = load_network(source, request.value_range)
    if METADATA_KEY in network.metadata and not request.force:
        raise ModelExportError(f"{source} already carries a contract; add --force to replace it")
    probe = probe_network(
        network,
        len(request.class_names),
        size=request.size,
        score_activation=request.score_activation,
    )
    proven = prove_axes(onnx.load(source), network, probe, fixed_size=request.fixed_size)
    quick = (
        Quickened(proven.model, network, ())
        if request.keep_graph
        else quicken(proven, network, probe)
    )
    name = request.name or default_name(source)
    contract = _contract(request, name, version, quick.network, probe, proven)
    try:
        save_with_contract(quick.model, contract, output)
    except OSError as error:
        raise ModelExportError(f"cannot write {output}: {error}") from error
    scores = f"objectness and classes are {probe.score_activation}"
    return Adoption(contract, (scores, *proven.notes, *quick.notes))


def _contract(
    request: AdoptRequest,
    name: str,
    version: str,
    network: OnnxNetwork,
    probe: Probe,
    proven: ProvenAxes,
) -> ModelContract:
    _, height, width, _ = probe.images.shape
    try:
        return ModelContract(
            name=name,
            version=version,
            input=InputSpec(
                name=network.image.name,
                height=height,
                width=width,
                dynamic_size=proven.dynamic_size,
                least_side=request.least_side,
                batch=proven.batch,
                layout=network.image.layout,
                dtype=network.image.dtype,
                color_order=request.color_order,
                value_range=request.value_range,
            ),
            class_names=request.class_names,
            strides=STRIDES,
            box_coding=request.box_coding,
            score_activation=probe.score_activation,
            recommended=request.recommended,
            provenance=request.provenance,
        )
    except ContractError as error:
        raise ModelExportError(str(error)) from error
