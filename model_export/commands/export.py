"""`python -m model_export export`: weights to a verified ONNX file with a contract."""

import argparse
import sys
from pathlib import Path
from typing import Final, get_args

from model_export.checksum import short_sha256
from model_export.commands.argument_types import size
from model_export.commands.contract_arguments import (
    add_least_side_argument,
    add_provenance_arguments,
    add_recommended_arguments,
    provenance,
    recommended,
)
from model_export.data.class_names import read_class_names
from model_export.errors import ModelExportError
from model_export.model.variants import HEAD_KINDS, VARIANTS, usual_size
from service.core.contract import (
    BoxCoding,
    ContractError,
    InputDtype,
    InputSpec,
    Layout,
    ModelContract,
)

LAYOUTS: Final[dict[InputDtype, Layout]] = {"uint8": "NHWC", "float32": "NCHW"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Export a YOLOX model to ONNX. The file is written only if onnxruntime matches PyTorch's "
        "outputs, for one image and for a batch of three, at the default size and at another."
    )
    parser.add_argument("--variant", required=True, choices=VARIANTS, help="the network")
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="a .pth checkpoint, or .npz"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to write")
    _add_model_arguments(parser.add_argument_group("the model"))
    _add_graph_arguments(parser.add_argument_group("the graph"))
    add_recommended_arguments(parser)
    add_provenance_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Export, report how far onnxruntime and torch differ, and print the file's path."""
    # Only here, so that `--help` and the other commands do not wait for torch.
    from model_export.exporting.export import export  # noqa: PLC0415
    from model_export.model.checkpoint import load_weights  # noqa: PLC0415
    from model_export.model.yolox import build  # noqa: PLC0415

    if arguments.output.is_dir():
        raise ModelExportError(f"cannot write {arguments.output}: it is a folder")
    contract = _contract(arguments)
    model = build(arguments.variant, contract.num_classes, arguments.head)
    load_weights(model, arguments.weights)
    differences = export(
        model, contract, arguments.output, half=arguments.half, compact=arguments.compact
    )
    sys.stderr.writelines(f"{difference}\n" for difference in differences)
    sys.stdout.write(f"{arguments.output}\n")


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--names", default="coco", help="`coco`, or a file of one name per line")
    group.add_argument(
        "--head", choices=HEAD_KINDS, default="decoupled", help="(default: decoupled)"
    )
    group.add_argument(
        "--box-coding",
        choices=get_args(BoxCoding),
        default="yolox",
        help="coding of the raw boxes that the model was trained with (default: yolox)",
    )
    group.add_argument("--name", help="the model's name (default: yolox-VARIANT)")
    group.add_argument(
        "--model-version", metavar="V", help="(default: 12 digits of the weights' SHA-256)"
    )


def _add_graph_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size",
        type=size,
        metavar="N|HxW",
        help="default height and width in pixels (default: 416 for pico to tiny, else 640)",
    )
    group.add_argument(
        "--fixed-size", action="store_true", help="accept --size only, not every multiple of 32"
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


def _contract(arguments: argparse.Namespace) -> ModelContract:
    side = usual_size(arguments.variant)
    height, width = arguments.size or (side, side)
    try:
        return ModelContract(
            name=arguments.name or f"yolox-{arguments.variant}",
            version=arguments.model_version or short_sha256(arguments.weights),
            input=InputSpec(
                name="images",
                height=height,
                width=width,
                dynamic_size=not arguments.fixed_size,
                least_side=arguments.least_side,
                layout=LAYOUTS[arguments.input],
                dtype=arguments.input,
            ),
            class_names=read_class_names(arguments.names),
            box_coding=arguments.box_coding,
            recommended=recommended(arguments),
            provenance=provenance(arguments),
        )
    except ContractError as error:
        raise ModelExportError(f"the model contract is invalid: {error}") from error
