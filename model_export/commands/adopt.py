"""`python -m model_export adopt`: stamp a contract on a third-party YOLOX file."""

import argparse
import sys
from pathlib import Path
from typing import get_args

from model_export.commands.argument_types import size
from model_export.commands.contract_arguments import (
    add_least_side_argument,
    add_provenance_arguments,
    add_recommended_arguments,
    provenance,
    recommended,
)
from service.core.contract import BoxCoding, ColorOrder, ScoreActivation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Run a YOLOX ONNX file that has no model contract, check that it outputs raw boxes, "
        "objectness and classes as the service expects, and write a copy with a contract. If the "
        "outputs provably stay the same, the copy also accepts any batch and image size, and its "
        "graph is optimized."
    )
    parser.add_argument("file", metavar="SOURCE", type=Path, help="the ONNX file")
    parser.add_argument("--output", type=Path, help="file to write (default: models/NAME.onnx)")
    parser.add_argument("--force", action="store_true", help="replace a contract or an output file")
    parser.add_argument(
        "--fixed-size", action="store_true", help="leave the graph's height and width as they are"
    )
    parser.add_argument(
        "--keep-graph",
        action="store_true",
        help="leave the graph's input type and operators as they are",
    )
    _add_model_arguments(parser.add_argument_group("what the file itself does not state"))
    add_recommended_arguments(parser)
    add_provenance_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Adopt the file, and print where it went."""
    # Only here, so that `--help` and the other commands need neither onnx nor onnxruntime.
    from model_export.adoption.adopt import AdoptRequest, adopt, default_name  # noqa: PLC0415
    from model_export.data.class_names import read_class_names  # noqa: PLC0415

    name = arguments.name or default_name(arguments.file)
    output = arguments.output or Path("models") / f"{name}.onnx"
    request = AdoptRequest(
        class_names=read_class_names(arguments.names),
        name=name,
        version=arguments.model_version,
        size=arguments.size,
        least_side=arguments.least_side,
        score_activation=arguments.score_activation,
        box_coding=arguments.box_coding,
        color_order=arguments.color,
        value_range=(arguments.value_range[0], arguments.value_range[1]),
        recommended=recommended(arguments),
        provenance=provenance(arguments),
        fixed_size=arguments.fixed_size,
        keep_graph=arguments.keep_graph,
        force=arguments.force,
    )
    for note in adopt(arguments.file, output, request).notes:
        sys.stderr.write(f"{note}\n")
    sys.stdout.write(f"{output}\n")


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--names", default="coco", help="`coco`, or a file of one name per line")
    group.add_argument("--name", help="the model's name (default: the file's, with `-` for `_`)")
    group.add_argument(
        "--model-version", metavar="V", help="(default: 12 digits of the file's SHA-256)"
    )
    group.add_argument(
        "--size",
        type=size,
        metavar="N|HxW",
        help="default height and width in pixels, if the graph leaves them open",
    )
    add_least_side_argument(group)
    group.add_argument(
        "--score-activation",
        choices=("auto", *get_args(ScoreActivation)),
        default="auto",
        help="the kind of scores; `auto` checks whether all are within 0 and 1",
    )
    group.add_argument(
        "--box-coding",
        choices=get_args(BoxCoding),
        default="yolox",
        help="coding of the raw boxes (default: yolox)",
    )
    group.add_argument(
        "--color", choices=get_args(ColorOrder), default="BGR", help="channel order (default: BGR)"
    )
    group.add_argument(
        "--value-range",
        nargs=2,
        type=float,
        default=(0.0, 255.0),
        metavar=("LOW", "HIGH"),
        help="input values for pixel values 0 and 255 (default: 0 255)",
    )
