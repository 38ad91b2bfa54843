"""Arguments that name data sets, shared by several commands."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import (
    AbsolutePath,
    Natural,
    absolute,
    each_parsed_by,
    parsed_by,
    training_data,
)
from model_export.data.class_names import read_class_names
from model_export.data.sources import DataSource, FormName, Share
from model_export.errors import ModelExportError, UsageError
from model_export.training.config import DrawnBarcodes

NAMES_SUFFIXES = (".txt", ".names")
FORMS = "a COCO json, a YOLO data.yaml, a CSV file, or a folder of one of them or of Pascal VOC"
DATA: Final = Group("The data", sort_key=1)
MEASURED: Final = Group("The data to measure on", sort_key=2)

ImageFolder = Annotated[
    AbsolutePath | None,
    Parameter(metavar="DIR", help="Images of a COCO json or CSV file (unset: near the file)"),
]
Form = Annotated[FormName | None, Parameter(help="Form of --data (unset: found out, and told)")]


def class_names(text: str) -> tuple[str, ...]:
    """Class names of a file, one a line, or with commas between them; `coco` for COCO's."""
    if text == "coco" or Path(text).suffix in NAMES_SUFFIXES or Path(text).is_file():
        try:
            return read_class_names(text)
        except ModelExportError as error:
            raise ValueError(str(error)) from error
    return tuple(name.strip() for name in text.split(",") if name.strip())


def share_or_path(text: str) -> float | Path:
    """A share above 0 and below 1, or an absolute path."""
    try:
        share = float(text)
    except ValueError:
        return absolute(text)
    if not 0 < share < 1:
        raise ValueError(f"{text} is no share above 0 and below 1")
    return share


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class DataOptions:
    """The data to learn from, all of them files; what is not given is None."""

    data: Annotated[
        tuple[Path | DrawnBarcodes, ...] | None,
        each_parsed_by(absolute, "PATH"),
        Parameter(help=f"One or several data sets: {FORMS} (needed)"),
    ] = None
    images: ImageFolder = None
    split: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Split of data sets that have several (unset: train)"),
    ] = None
    form: Form = None
    names: Annotated[
        tuple[str, ...] | None,
        parsed_by(class_names, "FILE|A,B,..", ","),
        Parameter(
            help="Classes in the order of the model's (unset: as in the data; VOC and CSV: sorted)"
        ),
    ] = None


@Parameter(name="*", group=DATA)
@dataclass(frozen=True)
class DrawableDataOptions(DataOptions):
    """The data to learn from, which may be drawn."""

    data: Annotated[
        tuple[Path | DrawnBarcodes, ...] | None,
        each_parsed_by(training_data, "PATH"),
        Parameter(
            help=f"One or several data sets: {FORMS}; or barcodes:N to draw N pictures per epoch "
            "(needed)"
        ),
    ] = None


@Parameter(name="*", group=MEASURED)
@dataclass(frozen=True)
class ValidationOptions:
    """The data to measure on; what is not given is None."""

    val: Annotated[
        tuple[float | Path, ...] | None,
        each_parsed_by(share_or_path, "PATH|SHARE"),
        Parameter(
            help="Validation data, or a share of --data to hold out, such as 0.2 (unset: the "
            "validation split of --data)"
        ),
    ] = None
    val_images: Annotated[
        AbsolutePath | None,
        Parameter(
            metavar="DIR", help="Images of --val, a COCO json or CSV file (unset: near the file)"
        ),
    ] = None
    val_split: Annotated[
        str | None,
        Parameter(metavar="NAME", help="Validation split of data sets (unset: val)"),
    ] = None
    val_form: Annotated[
        FormName | None, Parameter(help="Form of --val (unset: found out, and told)")
    ] = None
    val_seed: Annotated[
        Natural | None,
        Parameter(help="Decides which images a share holds out (unset: 0)"),
    ] = None


def data_source(given: DataOptions) -> DataSource | DrawnBarcodes:
    """The data to learn from.

    Raises:
        ModelExportError: It is not named, or drawn barcodes are to be joined with files.
    """
    if not given.data:
        raise UsageError(f"this needs --data: {FORMS}")
    drawn = [each for each in given.data if isinstance(each, DrawnBarcodes)]
    paths = [each for each in given.data if not isinstance(each, DrawnBarcodes)]
    if drawn and len(given.data) > 1:
        raise ModelExportError("drawn barcodes cannot be joined with other data")
    if drawn:
        return drawn[0]
    if given.split and any(path.suffix.lower() == ".json" and path.is_file() for path in paths):
        raise UsageError("a COCO json is one split: leave out --split, or name the json's folder")
    return DataSource(
        path=paths[0],
        images=given.images,
        split=given.split or "train",
        more=tuple(paths[1:]),
        form=given.form,
        class_names=given.names or (),
    )


def data_sources(
    data: DataOptions, given: ValidationOptions
) -> tuple[DataSource | DrawnBarcodes, DataSource]:
    """The data to learn from, and the data to measure on.

    Raises:
        ModelExportError: One is missing, or two arguments contradict each other.
    """
    source = data_source(data)
    if not given.val:
        return source, _own_validation(source, given.val_split or "val")
    from model_export.data.reading import is_divided  # noqa: PLC0415

    share, *others = given.val
    if isinstance(share, float):
        if others or given.val_images or given.val_split or given.val_form:
            raise ModelExportError("--val with a share takes no other validation data")
        return _shared(source, Share(share, given.val_seed or 0, held_out=False))
    paths = [each for each in others if isinstance(each, Path)]
    if len(paths) < len(others) or given.val_seed is not None:
        raise ModelExportError("--val-seed and a share go with --val SHARE alone")
    validation = DataSource(share, given.val_images, more=tuple(paths), form=given.val_form)
    # A folder without splits is taken whole, as the folder of one split is.
    usual = "train" if validation.path.is_dir() and not is_divided(validation) else "val"
    return source, replace(validation, split=given.val_split or usual)


def _own_validation(source: DataSource | DrawnBarcodes, split: str) -> DataSource:
    """The validation split of the data to learn from."""
    from model_export.data.reading import has_own_split  # noqa: PLC0415

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
