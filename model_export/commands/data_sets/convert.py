"""`python -m model_export convert`: write a data set in another form."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from model_export.commands.data_sets.arguments import add_data_arguments, data_source
from model_export.data.sources import FORM_NAMES, DataSource
from model_export.errors import ModelExportError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Write a data set in another form, with copies of its images: all of its splits, or the "
        "one named by --split. The paths printed at the end are for --data and --val. Classes keep "
        "their order; crowds and masks of COCO are left out, and polygons become boxes."
    )
    add_data_arguments(parser.add_argument_group("the data"), drawn=False)
    parser.add_argument("--to", required=True, choices=FORM_NAMES, help="form to write")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder to write to; empty or new"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read, write, and print what was left out and where the result is."""
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.data.forms.write import write_form  # noqa: PLC0415
    from model_export.data.reading import read, read_splits, united_names  # noqa: PLC0415

    source = data_source(vars(arguments))
    if not isinstance(source, DataSource):
        raise ModelExportError("drawn barcodes are written by `demo-data --subject barcodes`")
    split = arguments.split
    readings = {split: read(source)} if split else read_splits(source)
    for split, reading in readings.items():
        lines = [*reading.notes, f"{len(reading.images)} images"]
        if reading.crowd:
            lines.append(f"annotations of crowds, which are left out: {reading.crowd}")
        sys.stderr.writelines(f"{split}: {line}\n" for line in lines)
    names = source.class_names or united_names(list(readings.values()))
    for reading in readings.values():
        replace(reading, class_names=names).annotations()  # refuses classes without a number
    images = {split: reading.images for split, reading in readings.items()}
    written = write_form(arguments.to, arguments.output, images, names)
    sys.stdout.writelines(f"{path}\n" for path in written)
