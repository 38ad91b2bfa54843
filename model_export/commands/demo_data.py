"""`python -m model_export demo-data`: pictures to train on before there are any others."""

import argparse
import sys
from pathlib import Path
from typing import Final

from model_export.commands.argument_types import natural

# In pixels; on fewer, shapes have no form.
SMALLEST_SIDE: Final = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Draw pictures of circles, squares and triangles, or of barcodes, and write them with "
        "their boxes as two COCO data sets: train.json, val.json, and a folder images. The same "
        "numbers give the same files."
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder, made if it is not there"
    )
    parser.add_argument(
        "--subject", choices=("shapes", "barcodes"), default="shapes", help="(default: shapes)"
    )
    parser.add_argument(
        "--train", type=natural, default=200, metavar="N", help="pictures (default: 200)"
    )
    parser.add_argument(
        "--val", type=natural, default=50, metavar="N", help="pictures (default: 50)"
    )
    parser.add_argument(
        "--size",
        type=_side,
        default=224,
        metavar="N",
        help="of shapes: sides in pixels (default: 224)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="(default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Draw and write the pictures, and say which files list them."""
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.drawing.demo_data import barcodes, shapes, write_demo_data  # noqa: PLC0415

    if arguments.subject == "shapes":
        subject = shapes(arguments.size, arguments.seed)
    else:
        subject = barcodes(arguments.seed)
    written = write_demo_data(arguments.output, subject, train=arguments.train, val=arguments.val)
    sys.stdout.writelines(f"{path}\n" for path in written)


def _side(text: str) -> int:
    number = int(text)
    if number < SMALLEST_SIDE:
        raise argparse.ArgumentTypeError(f"{text} is below {SMALLEST_SIDE}")
    return number
