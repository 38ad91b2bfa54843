"""`python -m model_export demo-data`: draw a small data set to try training with."""

import argparse
import sys
from pathlib import Path
from typing import Final

from model_export.commands.argument_types import natural

# In pixels; shapes are not recognizable on smaller pictures.
SMALLEST_SIDE: Final = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Draw pictures of circles, squares and triangles, or of barcodes, and write them with "
        "their boxes as two COCO data sets: train.json, val.json and the folder images. The same "
        "arguments give the same files."
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="folder to write to; created if missing",
    )
    parser.add_argument(
        "--subject", choices=("shapes", "barcodes"), default="shapes", help="(default: shapes)"
    )
    parser.add_argument(
        "--train", type=natural, default=200, metavar="N", help="training pictures (default: 200)"
    )
    parser.add_argument(
        "--val", type=natural, default=50, metavar="N", help="validation pictures (default: 50)"
    )
    parser.add_argument(
        "--size",
        type=_side,
        default=224,
        metavar="N",
        help="side of pictures of shapes, in pixels (default: 224)",
    )
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="(default: 0)")


def run(arguments: argparse.Namespace) -> None:
    """Draw and write the pictures, and print the paths of the annotations."""
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
