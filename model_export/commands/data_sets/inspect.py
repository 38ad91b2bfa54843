"""`python -m model_export inspect`: what is in a data set, and what is probably wrong."""

import argparse
import sys
from pathlib import Path

from model_export.commands.argument_types import natural, training_size
from model_export.commands.data_sets.arguments import (
    add_data_arguments,
    add_validation_arguments,
    data_source,
    data_sources,
)
from model_export.commands.data_sets.training_data import read_training_data
from model_export.errors import ModelExportError
from model_export.model.variants import VARIANTS, usual_size
from model_export.samples.settings import augmentation_for

PAGE_SUFFIXES = (".html", ".md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Read a data set as `train` does, with the same arguments, and print a table of its "
        "classes and warnings of what is probably wrong. --output writes a page with pictures too."
    )
    group = parser.add_argument_group("the data")
    add_data_arguments(group, drawn=False)
    add_validation_arguments(group)
    view = parser.add_argument_group("the network")
    view.add_argument(
        "--variant", choices=VARIANTS, default="nano", help="whose size counts (default: nano)"
    )
    view.add_argument(
        "--size",
        type=training_size,
        metavar="N|HxW",
        help="height and width in pixels (default: the variant's)",
    )
    page = parser.add_argument_group("the page")
    page.add_argument(
        "--output", type=_page, metavar="FILE", help="page to write, .html or .md (default: none)"
    )
    page.add_argument(
        "--pictures",
        type=natural,
        default=12,
        metavar="N",
        help="pictures to show of each split, at most (default: 12)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Read, count, print, and write the page."""
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.data.checked_images import CheckedImages  # noqa: PLC0415
    from model_export.inspection.inspection import inspect  # noqa: PLC0415
    from model_export.inspection.page import write_page  # noqa: PLC0415
    from model_export.inspection.statistics import NetworkView  # noqa: PLC0415
    from model_export.inspection.tables import report  # noqa: PLC0415
    from model_export.measure.validation import read_validation_set  # noqa: PLC0415

    given = vars(arguments)
    source, validation = data_source(given), None
    if given["val"] or given["val_split"]:
        source, validation = data_sources(given)
    train = read_training_data(source, 0, validation)
    if not isinstance(train, CheckedImages):
        raise ModelExportError("drawn barcodes have no files to inspect; see `preview`")
    val = read_validation_set(validation, train.class_names).checked if validation else None
    side = usual_size(arguments.variant)
    height, width = arguments.size or (side, side)
    view = NetworkView(height, width, augmentation_for(arguments.variant).min_side)
    inspection = inspect(train, val, view)
    lines = [*train.report(), *(f"validation: {line}" for line in (val.report() if val else ()))]
    sys.stdout.writelines(f"{line}\n" for line in [*lines, *report(inspection)])
    if arguments.output:
        write_page(inspection, arguments.output, arguments.pictures)
        sys.stdout.write(f"{arguments.output}\n")


def _page(text: str) -> Path:
    if Path(text).suffix not in PAGE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} is neither .html nor .md")
    return Path(text)
