"""Arguments that name data sets, shared by several commands."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_export.commands.argument_types import absolute, natural, training_data
from model_export.data.class_names import read_class_names
from model_export.data.sources import FORM_NAMES, DataSource, Share
from model_export.errors import ModelExportError
from model_export.training.config import DrawnBarcodes

NAMES_SUFFIXES = (".txt", ".names")
FORMS = "a COCO json, a YOLO data.yaml, a CSV file, or a folder of one of them or of Pascal VOC"


def add_data_arguments(group: argparse._ArgumentGroup, *, drawn: bool = True) -> None:
    """Describe the data to learn from."""
    group.add_argument(
        "--data",
        type=training_data if drawn else absolute,
        nargs="+",
        metavar="PATH",
        help=f"one or several data sets: {FORMS}"
        + ("; or barcodes:N to draw N pictures per epoch" if drawn else "")
        + " (required)",
    )
    group.add_argument(
        "--images",
        type=absolute,
        metavar="DIR",
        help="images of a COCO json or CSV file (default: near the file)",
    )
    group.add_argument(
        "--split", metavar="NAME", help="split of data sets that have several (default: train)"
    )
    group.add_argument(
        "--form", choices=FORM_NAMES, help="form of --data (default: found out, and told)"
    )
    group.add_argument(
        "--names",
        type=class_names,
        metavar="FILE|A,B,..",
        help="classes in the order of the model's (default: as in the data; VOC and CSV: sorted)",
    )


def add_validation_arguments(group: argparse._ArgumentGroup) -> None:
    """Describe the data to measure on."""
    group.add_argument(
        "--val",
        type=share_or_path,
        nargs="+",
        metavar="PATH|SHARE",
        help="validation data, or a share of --data to hold out, such as 0.2 (default: the "
        "validation split of --data)",
    )
    group.add_argument(
        "--val-images",
        type=absolute,
        metavar="DIR",
        help="images of --val, a COCO json or CSV file (default: near the file)",
    )
    group.add_argument(
        "--val-split", metavar="NAME", help="validation split of data sets (default: val)"
    )
    group.add_argument(
        "--val-form", choices=FORM_NAMES, help="form of --val (default: found out, and told)"
    )
    group.add_argument(
        "--val-seed",
        type=natural,
        metavar="N",
        help="decides which images a share holds out (default: 0)",
    )


def class_names(text: str) -> tuple[str, ...]:
    """Class names of a file, one a line, or with commas between them; `coco` for COCO's."""
    if text == "coco" or Path(text).suffix in NAMES_SUFFIXES or Path(text).is_file():
        try:
            return read_class_names(text)
        except ModelExportError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
    return tuple(name.strip() for name in text.split(",") if name.strip())


def share_or_path(text: str) -> float | Path:
    """A share above 0 and below 1, or an absolute path."""
    try:
        share = float(text)
    except ValueError:
        return absolute(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share above 0 and below 1")
    return share


def data_source(given: Mapping[str, Any]) -> DataSource | DrawnBarcodes:
    """The data to learn from.

    Raises:
        ModelExportError: It is not named, or drawn barcodes are to be joined with files.
    """
    if not given.get("data"):
        raise ModelExportError(f"this needs --data: {FORMS}")
    first, *more = given["data"]
    if isinstance(first, DrawnBarcodes) and not more:
        return first
    if any(isinstance(each, DrawnBarcodes) for each in given["data"]):
        raise ModelExportError("drawn barcodes cannot be joined with other data")
    return DataSource(
        path=first,
        images=given.get("images"),
        split=given.get("split") or "train",
        more=tuple(more),
        form=given.get("form"),
        class_names=given.get("names") or (),
    )


def data_sources(given: Mapping[str, Any]) -> tuple[DataSource | DrawnBarcodes, DataSource]:
    """The data to learn from, and the data to measure on.

    Raises:
        ModelExportError: One is missing, or two arguments contradict each other.
    """
    source = data_source(given)
    measured = given.get("val")
    if not measured:
        return source, _own_validation(source, given)
    from model_export.data.reading import is_divided  # noqa: PLC0415

    share, *others = measured
    if isinstance(share, float):
        if others or given.get("val_images") or given.get("val_split") or given.get("val_form"):
            raise ModelExportError("--val with a share takes no other validation data")
        return _shared(source, Share(share, given.get("val_seed") or 0, held_out=False))
    if any(isinstance(each, float) for each in others) or given.get("val_seed") is not None:
        raise ModelExportError("--val-seed and a share go with --val SHARE alone")
    form = given.get("val_form")
    validation = DataSource(share, given.get("val_images"), more=tuple(others), form=form)
    # A folder without splits is taken whole, as the folder of one split is.
    usual = "train" if validation.path.is_dir() and not is_divided(validation) else "val"
    return source, replace(validation, split=given.get("val_split") or usual)


def _own_validation(source: DataSource | DrawnBarcodes, given: Mapping[str, Any]) -> DataSource:
    """The validation split of the data to learn from."""
    from model_export.data.reading import has_own_split  # noqa: PLC0415

    split = given.get("val_split") or "val"
    if isinstance(source, DrawnBarcodes) or not has_own_split(source, split):
        raise ModelExportError(
            "these data bring no validation images: add --val with other data, or --val 0.2 to "
            "hold out a fifth of the images"
        )
    return replace(source, split=split)


def _shared(source: DataSource | DrawnBarcodes, rest: Share) -> tuple[DataSource, DataSource]:
    if isinstance(source, DrawnBarcodes):
        raise ModelExportError("drawn barcodes cannot be held out; add --val with other data")
    held_out = replace(rest, held_out=True)
    return replace(source, share=rest), replace(source, share=held_out)
