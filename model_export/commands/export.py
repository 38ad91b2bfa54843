"""`python -m model_export export`: weights to a verified ONNX file with a contract."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, get_args

from model_export.checksum import short_sha256
from model_export.commands.argument_types import size
from model_export.commands.contract_arguments import (
    add_least_side_argument,
    add_pixel_arguments,
    add_provenance_arguments,
    add_recommended_arguments,
    pixel_values,
    provenance,
    recommended,
)
from model_export.commands.weights_kind import kind_of_weights, names_of_weights
from model_export.errors import ModelExportError
from model_export.model.variants import HEAD_KINDS, VARIANTS, plain_variant, usual_size
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

Advice = TypeVar("Advice", Recommended, Provenance)
LAYOUTS: Final[dict[InputDtype, Layout]] = {"uint8": "NHWC", "float32": "NCHW"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Export a YOLOX model to ONNX. The file is written only if onnxruntime matches PyTorch's "
        "outputs, for one image and for a batch of three, at the default size and at another. "
        "Quantise the file with care: plain static quantisation to 8 bits took YOLOX-nano from an "
        "AP of 0.299 to 0.184."
    )
    parser.add_argument(
        "--variant",
        type=plain_variant,
        choices=VARIANTS,
        help="the network (default: found out from the weights)",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--weights", type=Path, metavar="FILE", help="a .pth checkpoint, .npz or .safetensors"
    )
    what.add_argument(
        "--run", type=Path, metavar="DIR", dest="run_folder", help="a run's folder: its best.pth"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write (default: model.onnx of --run)"
    )
    _add_model_arguments(parser.add_argument_group("the model"))
    _add_graph_arguments(parser.add_argument_group("the graph"))
    add_recommended_arguments(parser)
    add_provenance_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, report how far onnxruntime and torch differ, and print the file's path."""
    # Only here, so that `--help` and the other commands do not wait for torch.
    from model_export.exporting.export import export  # noqa: PLC0415
    from model_export.model.about import read_about  # noqa: PLC0415
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    _resolve_run(arguments)
    if arguments.output.is_dir():
        raise ModelExportError(f"cannot write {arguments.output}: it is a folder")
    about = read_about(arguments.weights)
    kind = kind_of_weights(arguments.weights, arguments.variant, arguments.head)
    contract = _contract(arguments, kind, about)
    model = build(kind.variant, contract.num_classes, kind.head)
    ignored = load_weights(model, arguments.weights)
    if ignored:
        sys.stderr.write(f"left out, as the model has no such weights: {', '.join(ignored[:5])}\n")
    values = pixel_values(arguments)
    differences = export(
        model,
        contract,
        arguments.output,
        half=arguments.half,
        compact=arguments.compact,
        values=values,
    )
    sys.stderr.writelines(f"{difference}\n" for difference in differences)
    _warn_of_pixels(arguments.output, contract)
    sys.stdout.write(f"{arguments.output}\n")


def _resolve_run(arguments: argparse.Namespace) -> None:
    """Turn --run into the files that it stands for."""
    folder: Path | None = arguments.run_folder
    if folder:
        arguments.weights = folder / "best.pth"
        if not arguments.weights.is_file():
            raise ModelExportError(f"{folder} has no best.pth: no epoch has been measured yet")
        arguments.output = arguments.output or folder / "model.onnx"
    if arguments.output is None:
        raise ModelExportError("--weights needs --output, the file to write")


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


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--names",
        help="`coco`, or a file of one name per line (default: the checkpoint's, or COCO's if "
        "there are 80 classes)",
    )
    group.add_argument("--head", choices=HEAD_KINDS, help="(default: found out from the weights)")
    group.add_argument(
        "--box-coding",
        choices=get_args(BoxCoding),
        help="coding of the raw boxes that the model was trained with (default: the checkpoint's, "
        "or yolox)",
    )
    add_pixel_arguments(group, "yolox")
    group.add_argument("--name", help="the model's name (default: yolox-VARIANT)")
    group.add_argument(
        "--model-version", metavar="V", help="(default: 12 digits of the weights' SHA-256)"
    )


def _add_graph_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size",
        type=size,
        metavar="N|HxW",
        help="default height and width in pixels (default: the checkpoint's, or 416 for pico to "
        "tiny, else 640)",
    )
    group.add_argument(
        "--fixed-size",
        action="store_true",
        help="accept --size only, not every multiple of 32",
    )
    add_least_side_argument(group)
    group.add_argument(
        "--input",
        choices=tuple(LAYOUTS),
        default="uint8",
        help="uint8: N,H,W,3 as cameras deliver it; float32: N,3,H,W (default: uint8)",
    )
    weights = group.add_mutually_exclusive_group()
    weights.add_argument(
        "--half", action="store_true", help="weights and arithmetic in float16, for GPUs"
    )
    weights.add_argument(
        "--compact", action="store_true", help="weights in float16, arithmetic in float32"
    )


def _contract(arguments: argparse.Namespace, kind: "Kind", about: "About | None") -> ModelContract:
    """The contract of the file; what is not stated is as the checkpoint says."""
    known = about.contract if about else None
    try:
        return ModelContract(
            name=arguments.name or (known.name if known else f"yolox-{kind.variant}"),
            version=arguments.model_version or short_sha256(arguments.weights),
            input=_input(arguments, kind, known),
            class_names=names_of_weights(arguments.names, kind, known),
            box_coding=arguments.box_coding or (known.box_coding if known else "yolox"),
            recommended=_overridden(known.recommended if known else None, recommended(arguments)),
            provenance=_overridden(known.provenance if known else None, provenance(arguments)),
        )
    except ContractError as error:
        raise ModelExportError(f"the model contract is invalid: {error}") from error


def _input(arguments: argparse.Namespace, kind: "Kind", known: ModelContract | None) -> InputSpec:
    side = usual_size(kind.variant)
    usual = InputSpec("images", side, side, dynamic_size=True)
    spec = known.input if known else usual
    height, width = arguments.size or (spec.height, spec.width)
    return replace(
        spec,
        height=height,
        width=width,
        dynamic_size=spec.dynamic_size and not arguments.fixed_size,
        least_side=arguments.least_side or spec.least_side,
        layout=LAYOUTS[arguments.input],
        dtype=arguments.input,
    )


def _overridden(known: Advice | None, given: Advice) -> Advice:
    """The known values, replaced by the given ones."""
    stated = {name: value for name, value in asdict(given).items() if value not in (None, "")}
    return replace(known or given, **stated)
