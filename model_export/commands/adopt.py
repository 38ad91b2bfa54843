"""`python -m model_export adopt`: stamp a contract on a third-party YOLOX file."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from model_export.commands.argument_types import size, strides
from model_export.commands.contract_arguments import (
    add_least_side_argument,
    add_pixel_arguments,
    add_provenance_arguments,
    add_recommended_arguments,
    pixel_values,
    provenance,
    recommended,
)
from service.core.contract import BoxCoding, ModelContract, ScoreActivation

if TYPE_CHECKING:
    from model_export.adoption.adopt import AdoptRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Try a YOLOX ONNX file that has no model contract on pictures, find out how it takes "
        "pixels and gives boxes, and write a copy with the output that the server expects and a "
        "contract. A file that makes sense in no way, or in several, is refused with what was "
        "seen. If the outputs provably stay the same, the copy also accepts any batch and image "
        "size, and its graph is optimized. Quantise with care: plain static quantisation to 8 bits "
        "took YOLOX-nano from an AP of 0.299 to 0.184."
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
    _add_trial_arguments(parser.add_argument_group("the trial"))
    _add_model_arguments(parser.add_argument_group("what the file itself does not state"))
    add_recommended_arguments(
        parser,
        "a replaced contract's, else YOLOX's: joint scores from 0.3, hard suppression of all "
        "classes together at an IoU of 0.45",
    )
    add_provenance_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Adopt the file, and print where it went."""
    # Only here, so that `--help` and the other commands need neither onnx nor onnxruntime.
    from model_export.adoption.adopt import adopt, default_name  # noqa: PLC0415
    from model_export.adoption.show import show_progress  # noqa: PLC0415

    name = arguments.name or default_name(arguments.file)
    output = arguments.output or Path("models") / f"{name}.onnx"
    adoption = adopt(arguments.file, output, _request(arguments, name), show_progress())
    sys.stderr.writelines(f"{note}\n" for note in adoption.notes)
    if arguments.picture or arguments.photos:
        _show_found(adoption.contract, output, arguments)
    sys.stdout.write(f"{output}\n")


def _request(arguments: argparse.Namespace, name: str) -> "AdoptRequest":
    from model_export.adoption.adopt import AdoptRequest  # noqa: PLC0415
    from model_export.data.class_names import read_class_names  # noqa: PLC0415
    from model_export.data.image_files import read_image  # noqa: PLC0415

    return AdoptRequest(
        class_names=read_class_names(arguments.names) if arguments.names else None,
        name=name,
        version=arguments.model_version,
        size=arguments.size,
        least_side=arguments.least_side,
        strides=arguments.strides,
        score_activation=arguments.score_activation,
        box_coding=arguments.box_coding,
        pixel_values=pixel_values(arguments),
        photos=tuple(read_image(path) for path in arguments.photos),
        float_model=arguments.float_model,
        recommended=recommended(arguments),
        provenance=provenance(arguments),
        fixed_size=arguments.fixed_size,
        keep_graph=arguments.keep_graph,
        force=arguments.force,
    )


def _show_found(contract: ModelContract, model: Path, arguments: argparse.Namespace) -> None:
    """Tell what the adopted file finds on each photo, and draw it on the first picture."""
    from model_export.adoption.show import found_in_words, show_found  # noqa: PLC0415
    from model_export.data.image_files import read_image  # noqa: PLC0415

    target = arguments.picture
    for path in arguments.photos or [None]:
        found = show_found(contract, model, path and read_image(path), target)
        told = found_in_words(found, contract)
        sys.stderr.write(f"found on {path or 'the drawn objects'}: {told}\n")
        target = None


def _add_model_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--names",
        help="`coco`, or a file of one name per line (default: the file's own names, or COCO's if "
        "it has 80 classes)",
    )
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
        "--strides",
        type=strides,
        metavar="N,N,...",
        help="pixels per cell of each level (default: found out from the number of rows)",
    )
    add_pixel_arguments(group, "found out by trying")


def _add_trial_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--try",
        dest="photos",
        type=Path,
        action="append",
        default=[],
        metavar="PHOTO",
        help="a photo of what the model detects, to try it on besides drawn pictures; may be given "
        "several times",
    )
    group.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="write the first photo, or else the drawn objects, with the boxes that are found",
    )
    group.add_argument(
        "--float-model",
        type=Path,
        metavar="FILE",
        help="for an 8-bit model: the ONNX file it was made from, to compare their boxes",
    )
