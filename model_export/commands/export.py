"""`yolox-serve export`: weights to a verified ONNX file with a contract."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from cyclopts import Group, Parameter

from model_export.checksum import short_sha256
from model_export.commands.arguments.argument_types import (
    SWITCH,
    Network,
    Size,
    check_exactly_one,
)
from model_export.commands.arguments.contract_arguments import (
    LeastSide,
    PixelOptions,
    ProvenanceOptions,
    RecommendedOptions,
    pixel_values,
)
from model_export.commands.reporting import command
from model_export.commands.weights_kind import kind_of_weights, names_of_weights
from model_export.errors import ModelExportError, UsageError
from model_export.files import check_writable
from model_export.model.variants import HeadKind, usual_size
from service.core.contract import (
    BoxCoding,
    ContractError,
    InputDtype,
    InputSpec,
    Layout,
    ModelContract,
    Provenance,
    Recommended,
)

if TYPE_CHECKING:
    from model_export.model.about import About
    from model_export.model.checkpoint import Kind

WEIGHTS: Final = Group("The weights (one of these)", sort_key=0)
MODEL: Final = Group("The model", sort_key=1)
GRAPH: Final = Group("The graph", sort_key=2)
PRECISION: Final = Group("Precision (float32, unless one of these is given)", sort_key=3)
LAYOUTS: Final[dict[InputDtype, Layout]] = {"uint8": "NHWC", "float32": "NCHW"}
Advice = TypeVar("Advice", Recommended, Provenance)


@Parameter(name="*", group=WEIGHTS)
@dataclass(frozen=True)
class SourceOptions:
    """The weights to export."""

    weights: Annotated[
        Path | None, Parameter(metavar="FILE", help="A .pth checkpoint, .npz or .safetensors")
    ] = None
    run: Annotated[
        Path | None, Parameter(metavar="DIR", help="The folder of a `train` run: its best.pth")
    ] = None


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Facts about the model; those that are None are as its weights say."""

    variant: Annotated[
        Network | None, Parameter(help="The network (unset: found out from the weights)")
    ] = None
    names: Annotated[
        str | None,
        Parameter(
            metavar="coco|FILE",
            help="COCO's class names, or a file of one name per line (unset: the checkpoint's, or "
            "COCO's if there are 80 classes)",
        ),
    ] = None
    head: Annotated[
        HeadKind | None, Parameter(help="Its head (unset: found out from the weights)")
    ] = None
    box_coding: Annotated[
        BoxCoding | None,
        Parameter(
            help="Coding of the raw boxes that the model was trained with (unset: the "
            "checkpoint's, or yolox)"
        ),
    ] = None
    name: Annotated[
        str | None,
        Parameter(
            metavar="NAME", help="The model's name (unset: the checkpoint's, or yolox-VARIANT)"
        ),
    ] = None
    model_version: Annotated[
        str | None, Parameter(metavar="V", help="Unset: 12 digits of the weights' SHA-256")
    ] = None


@Parameter(name="*", group=GRAPH)
@dataclass(frozen=True)
class GraphOptions:
    """The inputs and the arithmetic of the graph."""

    size: Annotated[
        Size | None,
        Parameter(
            help="Default height and width in pixels (unset: the checkpoint's, or 416 for pico to "
            "tiny, else 640)"
        ),
    ] = None
    fixed_size: Annotated[
        bool, SWITCH, Parameter(help="Accept --size only, not every multiple of 32")
    ] = False
    least_side: LeastSide = None
    input: Annotated[
        Literal["uint8", "float32"],
        Parameter(help="uint8: N,H,W,3 as cameras deliver it; float32: N,3,H,W"),
    ] = "uint8"
    half: Annotated[
        bool,
        SWITCH,
        Parameter(group=PRECISION, help="Weights and arithmetic in float16, for GPUs"),
    ] = False
    compact: Annotated[
        bool,
        SWITCH,
        Parameter(group=PRECISION, help="Weights in float16, arithmetic in float32"),
    ] = False


@dataclass(frozen=True)
class _Given:
    """Every argument that a contract is made of."""

    weights: Path
    model: ModelOptions
    graph: GraphOptions
    recommended: RecommendedOptions
    provenance: ProvenanceOptions


@command("export", extra="train")
def run(
    *,
    source: SourceOptions = SourceOptions(),
    output: Annotated[
        Path | None, Parameter(metavar="FILE", help="File to write (unset: model.onnx of --run)")
    ] = None,
    model: ModelOptions = ModelOptions(),
    pixels: Annotated[PixelOptions, Parameter(group=MODEL)] = PixelOptions(),
    graph: GraphOptions = GraphOptions(),
    recommended: RecommendedOptions = RecommendedOptions(),
    provenance: ProvenanceOptions = ProvenanceOptions(),
) -> None:
    """Export a PyTorch checkpoint to ONNX.

    The file is written only if onnxruntime matches PyTorch's outputs, for one image and for a batch
    of three, at the default size and at another. Quantise the file with care: plain static
    quantisation to 8 bits took YOLOX-nano from an AP of 0.299 to 0.184.

    A checkpoint of `train` contains its classes, size, box coding and thresholds. Other weights
    recommend the thresholds of YOLOX's own tools: joint scores from 0.3, hard suppression of all
    classes together at an IoU of 0.45.

    Example: `yolox-serve export --weights yolox_nano.pth --output model.onnx`
    """
    if graph.half and graph.compact:
        raise UsageError("--half and --compact do not go together")
    # Only here, so that `--help` and the other commands do not wait for torch.
    from model_export.exporting.export import export  # noqa: PLC0415
    from model_export.model.about import read_about  # noqa: PLC0415
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    weights, target = _resolve_run(source, output)
    if target.is_dir():
        raise ModelExportError(f"cannot write {target}: it is a folder")
    check_writable(target)
    kind = kind_of_weights(weights, model.variant, model.head)
    given = _Given(weights, model, graph, recommended, provenance)
    contract = _contract(given, kind, read_about(weights))
    network = build(kind.variant, contract.num_classes, kind.head)
    ignored = load_weights(network, weights)
    if ignored:
        sys.stderr.write(f"left out, as the model has no such weights: {', '.join(ignored[:5])}\n")
    differences = export(
        network,
        contract,
        target,
        half=graph.half,
        compact=graph.compact,
        values=pixel_values(pixels),
    )
    sys.stderr.writelines(f"{difference}\n" for difference in differences)
    _warn_of_pixels(target, contract)
    sys.stdout.write(f"{target}\n")


def _resolve_run(source: SourceOptions, output: Path | None) -> tuple[Path, Path]:
    """The weights to read and the file to write."""
    check_exactly_one(source)
    weights = source.run / "best.pth" if source.run else source.weights
    output = output or (source.run / "model.onnx" if source.run else None)
    if weights is None or output is None:
        raise UsageError("--weights needs --output, the file to write")
    if source.run and not source.run.is_dir():
        raise ModelExportError(f"there is no folder {source.run}")
    if source.run and not weights.is_file():
        if not (source.run / "config.json").is_file():
            raise ModelExportError(f"{source.run} is not the folder of a run: it has no best.pth")
        raise ModelExportError(f"{source.run} has no best.pth: no epoch has been measured yet")
    return weights, output


def _warn_of_pixels(path: Path, contract: ModelContract) -> None:
    """Weights that find objects on grey were most probably trained with other pixel values."""
    from model_export.adoption.trust import objects_on_grey  # noqa: PLC0415

    score = objects_on_grey(path, contract)
    if score is not None:
        sys.stderr.write(
            f"warning: the model finds objects on plain grey (score {score:.2f}), as models do "
            "whose pixel values are wrong; if it was trained with YOLOX 0.1.0 or --legacy, export "
            "it with --preprocessing legacy, else with --color, --value-range, --mean and --std\n"
        )


def _contract(given: _Given, kind: "Kind", about: "About | None") -> ModelContract:
    """The contract of the file; what is not given is as the checkpoint says."""
    model, known = given.model, about.contract if about else None
    recommended, provenance = given.recommended.contract_part(), given.provenance.contract_part()
    known = _measured_at(known, given.graph.size)
    box_coding = model.box_coding or (known.box_coding if known else "yolox")
    try:
        return ModelContract(
            name=model.name or (known.name if known else f"yolox-{kind.variant}"),
            version=model.model_version or short_sha256(given.weights),
            input=_input(given.graph, kind, known),
            class_names=names_of_weights(model.names, kind, known),
            box_coding=box_coding,
            recommended=_overridden(_known_thresholds(known, box_coding), recommended),
            provenance=_overridden(known.provenance if known else None, provenance),
        )
    except ContractError as error:
        raise ModelExportError(f"the model contract is invalid: {error}") from error


def _measured_at(known: ModelContract | None, size: tuple[int, int] | None) -> ModelContract | None:
    """A checkpoint's contract; its metrics name their size where the file is for another one."""
    spec = known.input if known else None
    if (
        not known
        or not spec
        or not known.provenance.metrics
        or size in (None, (spec.height, spec.width))
    ):
        return known
    metrics = f"{known.provenance.metrics}, at {spec.height}x{spec.width}"
    return replace(known, provenance=replace(known.provenance, metrics=metrics))


def _input(given: GraphOptions, kind: "Kind", known: ModelContract | None) -> InputSpec:
    side = usual_size(kind.variant)
    spec = known.input if known else InputSpec("images", side, side, dynamic_size=True)
    height, width = given.size or (spec.height, spec.width)
    return replace(
        spec,
        height=height,
        width=width,
        dynamic_size=spec.dynamic_size and not given.fixed_size,
        least_side=given.least_side or spec.least_side,
        layout=LAYOUTS[given.input],
        dtype=given.input,
    )


def _known_thresholds(known: ModelContract | None, box_coding: BoxCoding) -> Recommended:
    """The recommendation of a checkpoint, or else the usual one for weights of YOLOX."""
    from model_export.adoption.usual_thresholds import usual_thresholds  # noqa: PLC0415

    carried = known.recommended if known else Recommended()
    return usual_thresholds(box_coding) if carried == Recommended() else carried


def _overridden(known: Advice | None, given: Advice) -> Advice:
    """The known values, replaced by the given ones."""
    stated = {name: value for name, value in asdict(given).items() if value not in (None, "")}
    return replace(known or given, **stated)
