"""`yolox-serve inspect`: the contents of a data set, and its probable faults."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import Natural, Network, TrainingSize, parsed_by
from model_export.commands.data_sets.arguments import (
    DataOptions,
    ValidationOptions,
    data_source,
    data_sources,
)
from model_export.commands.data_sets.training_data import read_training_data
from model_export.commands.reporting import command
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.model.variants import usual_size
from model_export.samples.settings import augmentation_for
from model_export.training.config import DrawnBarcodes

NETWORK: Final = Group("The network", sort_key=3)
PAGE: Final = Group("The page", sort_key=4)
PAGE_SUFFIXES = (".html", ".md")
NO_VALIDATION: Final = "none; a training needs --val, such as --val 0.2 for a fifth of the images"


def _page(text: str) -> Path:
    if Path(text).suffix not in PAGE_SUFFIXES:
        raise ValueError(f"{text} is neither .html nor .md")
    return Path(text)


@command("inspect", extra="train")
def run(
    *,
    data: DataOptions = DataOptions(),
    measured: ValidationOptions = ValidationOptions(),
    variant: Annotated[
        Network, Parameter(group=NETWORK, help="The network whose size counts")
    ] = "nano",
    size: Annotated[
        TrainingSize | None,
        Parameter(group=NETWORK, help="Height and width in pixels (unset: the variant's)"),
    ] = None,
    output: Annotated[
        Path | None,
        parsed_by(_page, "FILE"),
        Parameter(group=PAGE, help="Page to write, .html or .md (unset: none)"),
    ] = None,
    pictures: Annotated[
        Natural, Parameter(group=PAGE, help="Pictures to show of each split, at most")
    ] = 12,
) -> None:
    """Count the objects of a data set, and warn of its probable faults.

    Read a data set as `train` does, with the same arguments, and print a table of its classes and
    warnings. --output writes a page with pictures too.

    Example: `yolox-serve inspect --data coco/train.json --output report.html`
    """
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.data.checked_images import CheckedImages  # noqa: PLC0415
    from model_export.inspection.inspection import inspect  # noqa: PLC0415
    from model_export.inspection.page import write_page  # noqa: PLC0415
    from model_export.inspection.statistics import NetworkView  # noqa: PLC0415
    from model_export.inspection.tables import report  # noqa: PLC0415
    from model_export.measure.validation_data import read_validation_set  # noqa: PLC0415

    source, validation = _sources(data, measured)
    train = read_training_data(source, 0, validation)
    if not isinstance(train, CheckedImages):
        raise ModelExportError("drawn barcodes have no files to inspect; see `preview`")
    val = read_validation_set(validation, train.class_names).checked if validation else None
    side = usual_size(variant)
    height, width = size or (side, side)
    view = NetworkView(height, width, augmentation_for(variant).min_side)
    inspection = inspect(train, val, view)
    of_val = val.report() if val else [NO_VALIDATION]
    lines = [*train.report(), *(f"validation: {line}" for line in of_val)]
    sys.stdout.writelines(f"{line}\n" for line in [*lines, *report(inspection)])
    if output:
        write_page(inspection, output, pictures)
        sys.stdout.write(f"{output}\n")


def _sources(
    data: DataOptions, measured: ValidationOptions
) -> tuple[DataSource | DrawnBarcodes, DataSource | None]:
    """Those of a training, which needs data to measure on; here they may be missing."""
    from model_export.data.reading import has_split  # noqa: PLC0415

    source = data_source(data)
    if measured.val or measured.val_split:
        return data_sources(data, measured)
    if isinstance(source, DataSource) and source.split == "train" and has_split(source, "val"):
        return source, replace(source, split="val")
    return source, None
