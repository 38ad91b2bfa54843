"""`yolox-serve convert`: write a data set in another form."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from model_export.commands.data_sets.arguments import DataOptions, data_source
from model_export.commands.reporting import command
from model_export.data.sources import DataSource, FormName
from model_export.errors import ModelExportError


@command("convert", extra="train")
def run(
    *,
    to: Annotated[FormName, Parameter(help="Form to write")],
    output: Annotated[Path, Parameter(metavar="DIR", help="Folder to write to; empty or new")],
    data: DataOptions = DataOptions(),
) -> None:
    """Write a data set in another form.

    Write it with copies of its images: all of its splits, or the one named by --split. The paths
    printed at the end are for --data and --val. Classes keep their order; crowds and masks of COCO
    are left out, and polygons become boxes.

    Example: `yolox-serve convert --data voc/ --to coco --output coco/`
    """
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.data.forms.write import write_form  # noqa: PLC0415
    from model_export.data.reading import read, read_splits, united_names  # noqa: PLC0415

    source = data_source(data)
    if not isinstance(source, DataSource):
        raise ModelExportError("drawn barcodes are written by `demo-data --subject barcodes`")
    split = data.split
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
    written = write_form(to, output, images, names)
    sys.stdout.writelines(f"{path}\n" for path in written)
