"""`yolox-serve export`: weights to a verified ONNX file with a contract."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import Group, Parameter

from model_export.checksum import short_sha256
from model_export.commands.arguments.argument_types import SWITCH, Network, Size
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
from model_export.model.variants import HeadKind, usual_size
from service.core.contract import (
    BoxCoding,
    ContractError,
    InputDtype,
    InputSpec,
    Layout,
    ModelContract,
)

if TYPE_CHECKING:
    from model_export.model.checkpoint import Kind

MODEL: Final = Group("The model", sort_key=1)
GRAPH: Final = Group("The graph", sort_key=2)
PRECISION: Final = Group("Precision (float32, unless one of these is given)", sort_key=3)
LAYOUTS: Final[dict[InputDtype, Layout]] = {"uint8": "NHWC", "float32": "NCHW"}


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """Facts about the model that its weights do not state."""

    variant: Annotated[
        Network | None, Parameter(help="The network (unset: found out from the weights)")
    ] = None
    names: Annotated[
        str | None,
        Parameter(
            help="`coco`, or a file of one name per line (unset: COCO's if there are 80 classes)"
        ),
    ] = None
    head: Annotated[
        HeadKind | None, Parameter(help="Its head (unset: found out from the weights)")
    ] = None
    box_coding: Annotated[
        BoxCoding, Parameter(help="Coding of the raw boxes that the model was trained with")
    ] = "yolox"
    name: Annotated[str | None, Parameter(help="The model's name (unset: yolox-VARIANT)")] = None
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
            help="Default height and width in pixels (unset: 416 for pico to tiny, else 640)"
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
    weights: Annotated[
        Path, Parameter(metavar="FILE", help="A .pth checkpoint, .npz or .safetensors")
    ],
    output: Annotated[Path, Parameter(metavar="FILE", help="File to write")],
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

    For thresholds that are not given the service's apply.

    Example: `yolox-serve export --weights yolox_nano.pth --output model.onnx`
    """
    if graph.half and graph.compact:
        raise UsageError("--half and --compact do not go together")
    # Only here, so that `--help` and the other commands do not wait for torch.
    from model_export.exporting.export import export  # noqa: PLC0415
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    if output.is_dir():
        raise ModelExportError(f"cannot write {output}: it is a folder")
    kind = kind_of_weights(weights, model.variant, model.head)
    contract = _contract(_Given(weights, model, graph, recommended, provenance), kind)
    network = build(kind.variant, contract.num_classes, kind.head)
    ignored = load_weights(network, weights)
    if ignored:
        sys.stderr.write(f"left out, as the model has no such weights: {', '.join(ignored[:5])}\n")
    differences = export(
        network,
        contract,
        output,
        half=graph.half,
        compact=graph.compact,
        values=pixel_values(pixels),
    )
    sys.stderr.writelines(f"{difference}\n" for difference in differences)
    _warn_of_pixels(output, contract)
    sys.stdout.write(f"{output}\n")


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


def _contract(given: _Given, kind: "Kind") -> ModelContract:
    model, graph = given.model, given.graph
    side = usual_size(kind.variant)
    height, width = graph.size or (side, side)
    try:
        return ModelContract(
            name=model.name or f"yolox-{kind.variant}",
            version=model.model_version or short_sha256(given.weights),
            input=InputSpec(
                name="images",
                height=height,
                width=width,
                dynamic_size=not graph.fixed_size,
                least_side=graph.least_side,
                layout=LAYOUTS[graph.input],
                dtype=graph.input,
            ),
            class_names=names_of_weights(model.names, kind),
            box_coding=model.box_coding,
            recommended=given.recommended.contract_part(),
            provenance=given.provenance.contract_part(),
        )
    except ContractError as error:
        raise ModelExportError(f"the model contract is invalid: {error}") from error
