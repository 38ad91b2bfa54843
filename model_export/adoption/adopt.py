"""Verify a third-party YOLOX file and add the contract that it lacks."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from model_export.adoption.quantised import quantisation_note, read_as_float
from model_export.adoption.read_graph import Facts, ReadGraph
from model_export.adoption.reading.choice.candidate import Progress
from model_export.adoption.reading.drawn import Pixels
from model_export.adoption.reading.evidence import OPTIONS, holds
from model_export.adoption.reading.pictures import first_pictures
from model_export.adoption.reading.trial_network import TrialNetwork
from model_export.adoption.source_file import read_onnx
from model_export.adoption.usual_thresholds import (
    USUAL_NOTE,
    USUAL_THRESHOLDS,
    usual_thresholds,
)
from model_export.checksum import short_sha256
from model_export.errors import ModelExportError
from model_export.graphs.network import image_input, load_network, open_session
from model_export.graphs.onnx_file import save_with_contract
from model_export.graphs.pixel_values import PLAIN_RANGE, PixelValues, take_plain_pixels
from model_export.graphs.probe import probe_network
from model_export.graphs.prove_axes import ProvenAxes, prove_axes
from model_export.graphs.simplify import Quickened, quicken
from service.core.contract import (
    METADATA_KEY,
    BoxCoding,
    ContractError,
    InputSpec,
    ModelContract,
    Provenance,
    Recommended,
    ScoreActivation,
)
from service.core.decode import anchor_grid, decode_candidates
from service.core.suppress import suppress


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """The facts and choices that the file itself does not state.

    Attributes:
        class_names: One name for each class, in order; None takes them from the file, or COCO's
            if the file has 80 classes.
        name: The model's name; None makes it from the file's.
        version: The model's version; None takes the first 12 digits of the file's SHA-256.
        size: (height, width) in pixels for the axes that the graph leaves open.
        least_side: Minimum height and width in pixels, for a model of dynamic size; None for 32.
        strides: Pixels per cell of each level; None finds them out from the number of rows.
        score_activation: `auto` tells logits from probabilities by running the model.
        box_coding: How four raw box values become a box.
        pixel_values: The values that the network takes; None finds them out by trying.
        photos: Photos to try the model on, (h, w, 3) uint8 BGR, besides drawn pictures.
        float_model: The file that an 8-bit model was made from, to compare its boxes.
        recommended: Thresholds to prefer over the service's defaults; those left at None are taken
            from a contract that is replaced, else they are the usual ones of YOLOX.
        provenance: The model's origin.
        fixed_size: Leave the graph's height and width as they are, and promise no others.
        keep_graph: Leave the input's type and the operators as they are, as far as that goes.
        force: Replace an existing contract and an existing output file, and accept a model that
            finds objects on plain grey.
    """

    class_names: tuple[str, ...] | None = None
    name: str | None = None
    version: str | None = None
    size: tuple[int, int] | None = None
    least_side: int | None = None
    strides: tuple[int, ...] | None = None
    score_activation: ScoreActivation | Literal["auto"] = "auto"
    box_coding: BoxCoding = "yolox"
    pixel_values: PixelValues | None = None
    photos: tuple[Pixels, ...] = ()
    float_model: Path | None = None
    recommended: Recommended = field(default_factory=Recommended)
    provenance: Provenance = field(default_factory=Provenance)
    fixed_size: bool = False
    keep_graph: bool = False
    force: bool = False

    @property
    def facts(self) -> Facts:
        """The facts about the graph that it states."""
        return Facts(
            self.class_names,
            self.size,
            self.strides,
            self.pixel_values,
            self.box_coding,
            self.photos,
            tolerates_grey=self.force,
        )


@dataclass(frozen=True, slots=True)
class Adoption:
    """An adopted model's contract, and notes for the user."""

    contract: ModelContract
    notes: tuple[str, ...]


def default_name(source: Path) -> str:
    """The default model name of a file: `yolox-nano` for `yolox_nano.onnx`."""
    return source.stem.lower().replace("_", "-")


def adopt(
    source: Path, output: Path, request: AdoptRequest, progress: Progress = lambda _: None
) -> Adoption:
    """Find out how a YOLOX ONNX file is used, and write a copy that carries a contract.

    The copy's output is raw rows, whatever the file's was. A graph for one batch or image size is
    opened for any if its outputs provably stay the same; otherwise the contract states that size.
    The graph is also optimized, under the same condition.

    Args:
        source: The file.
        output: The file to write.
        request: The user's statements and wishes.
        progress: Told in a few words what is being done.

    Raises:
        ModelExportError: The file is not what the request says, makes no sense in any reading or in
            several, or cannot be read or written; then nothing is written.
    """
    if output.exists() and not request.force:
        raise ModelExportError(f"{output} exists; add --force to replace it")
    version = request.version or short_sha256(source)
    model = read_onnx(source)
    carried = _carried(model)
    if carried is not None and not request.force:
        raise ModelExportError(f"{source} already carries a contract; add --force to replace it")
    request, advice = _with_usual_thresholds(request, carried)
    read = read_as_float(model, request.facts, progress)
    _check_activation(read, request)
    values = read.reading.values
    in_contract = request.keep_graph and not values.is_normalised
    stated = values if in_contract else PixelValues()
    plain = read.model if in_contract else _with_plain_pixels(read)
    progress("proving which batches and sizes it takes")
    network = load_network(plain.SerializeToString(), stated.value_range)
    probe = probe_network(network, len(read.class_names), read.size, read.strides)
    proven = prove_axes(plain, network, probe, fixed_size=request.fixed_size or read.is_bound)
    quick = (
        Quickened(proven.model, network, ())
        if request.keep_graph
        else quicken(proven, network, probe)
    )
    name = request.name or default_name(source)
    contract = _contract(request, read, stated, quick, proven, name, version)
    _prove(quick, contract, read)
    cost = quantisation_note(model, request.float_model, request.facts, read, progress)
    try:
        save_with_contract(quick.model, contract, output)
    except OSError as error:
        raise ModelExportError(f"cannot write {output}: {error}") from error
    return Adoption(contract, (*read.notes, *proven.notes, *quick.notes, *advice, *cost))


def _carried(model: onnx.ModelProto) -> Recommended | None:
    """The recommendation in the contract of a file; None if it has no contract."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        return None
    try:
        return ModelContract.from_metadata(metadata).recommended
    except ContractError:
        return Recommended()


def _with_usual_thresholds(
    request: AdoptRequest, carried: Recommended | None
) -> tuple[AdoptRequest, tuple[str, ...]]:
    """The request with every threshold, and a note if nobody stated any."""
    usual = usual_thresholds(request.box_coding)
    sources = [request.recommended, carried or Recommended()]
    chosen = usual
    for source in reversed(sources):
        chosen = replace(chosen, **_stated_fields(source))
    notes = (USUAL_NOTE,) if chosen == usual == USUAL_THRESHOLDS else ()
    return replace(request, recommended=chosen), notes


def _stated_fields(thresholds: Recommended) -> dict[str, Any]:
    return {name: value for name, value in asdict(thresholds).items() if value is not None}


def _with_plain_pixels(read: ReadGraph) -> onnx.ModelProto:
    if read.reading.values.is_plain:
        return read.model
    image = image_input(open_session(read.model.SerializeToString()))
    return take_plain_pixels(read.model, image, read.reading.values)


def _check_activation(read: ReadGraph, request: AdoptRequest) -> None:
    said, rows = request.score_activation, read.reading.rows
    if said != "auto" and {said} != {rows.objectness, rows.classes}:
        raise ModelExportError(
            f"--score-activation {said} is wrong: they are {rows.objectness} for objectness and "
            f"{rows.classes} for classes"
        )


def _prove(quick: Quickened, contract: ModelContract, read: ReadGraph) -> None:
    """Read the finished graph by its contract: it finds what the file's own outputs gave.

    Raises:
        ModelExportError: A box is missing.
    """
    (first, *_) = first_pictures(read.size, read.class_names)
    if (contract.input.color_order, contract.input.value_range) == ("BGR", PLAIN_RANGE):
        raw = quick.network.run_singly(first.image[np.newaxis])[0]
    else:
        network = TrialNetwork(quick.network.session, quick.network.image, *read.size)
        (raw,) = network.run(first.image, read.reading.values).values()
        raw = raw[0]
    candidates = decode_candidates(
        raw,
        anchor_grid(*read.size, contract.strides),
        contract,
        confidence=OPTIONS.confidence,
        score_by=OPTIONS.score_by,
        max_candidates=OPTIONS.max_candidates,
    )
    found, expected = suppress(candidates, OPTIONS), read.reading.found[0]
    if not holds(found, expected):
        raise ModelExportError(
            "the rewritten graph does not give the boxes of the file's own outputs; please report "
            "this with the file"
        )


def _contract(
    request: AdoptRequest,
    read: ReadGraph,
    values: PixelValues,
    quick: Quickened,
    proven: ProvenAxes,
    name: str,
    version: str,
) -> ModelContract:
    height, width = read.size
    image = quick.network.image
    try:
        return ModelContract(
            name=name,
            version=version,
            input=InputSpec(
                name=image.name,
                height=height,
                width=width,
                dynamic_size=proven.dynamic_size,
                least_side=request.least_side,
                batch=proven.batch,
                layout=image.layout,
                dtype=image.dtype,
                color_order=values.color_order,
                value_range=values.value_range,
            ),
            class_names=read.class_names,
            strides=read.strides,
            box_coding=request.box_coding,
            score_activation=read.score_activation,
            recommended=request.recommended,
            provenance=request.provenance,
        )
    except ContractError as error:
        raise ModelExportError(str(error)) from error
