"""Finds out the form of a data set."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from model_export.data.annotations import first_few
from model_export.data.forms.coco_folder import coco_files
from model_export.data.forms.csv_boxes import CSV_SUFFIXES, csv_files
from model_export.data.forms.found_images import (
    files_in,
    image_files,
    plain_file_name,
    similar_files,
)
from model_export.data.forms.splits import split_folders, subfolder
from model_export.data.forms.voc import xml_files
from model_export.data.forms.yolo_layout import (
    LABEL_SUFFIX,
    YAML_SUFFIXES,
    description,
    names_file,
)
from model_export.data.sources import FormName
from model_export.data.texts import read_bytes
from model_export.errors import ModelExportError

TITLES: Final[Mapping[FormName, str]] = {
    "coco": "COCO",
    "yolo": "YOLO",
    "voc": "Pascal VOC",
    "csv": "CSV",
}
OF_SUFFIX: Final[Mapping[str, FormName]] = {
    ".json": "coco",
    ".data": "yolo",
    **dict.fromkeys(YAML_SUFFIXES, "yolo"),
    **dict.fromkeys(CSV_SUFFIXES, "csv"),
}


class Found(NamedTuple):
    """The form of a data set.

    Attributes:
        form: The form.
        note: How it was found, for a person.
    """

    form: FormName
    note: str


def find_form(path: Path) -> Found:
    """Find out the form of a data set by the names of its files.

    Args:
        path: A file or a folder.

    Raises:
        ModelExportError: There is no such path, or nothing in it is known.
    """
    if path.is_dir():
        return _of_folder(path)
    form = OF_SUFFIX.get(path.suffix.lower())
    if not path.is_file():
        read_bytes(path)  # raises the error that says why
    if form is None:
        raise ModelExportError(
            f"{path} is no data set: give a COCO .json, a YOLO .yaml, a .csv, or the folder of one "
            "of them or of Pascal VOC"
        )
    return Found(form, f"{path.name}: read as {TITLES[form]}, by its suffix")


def _of_folder(folder: Path) -> Found:
    signs: Mapping[FormName, Callable[[Path], str | None]] = {
        "yolo": _yolo_sign,
        "coco": _coco_sign,
        "csv": _csv_sign,
        "voc": _xml_sign,
    }
    if (folder / "ImageSets").is_dir():
        return Found("voc", f"{folder.name}: read as Pascal VOC, for its ImageSets")
    found = [(form, sign) for form, find in signs.items() if (sign := find(folder))]
    inner = sorted(path.parent.name for path in folder.glob("*/ImageSets"))
    if inner and not any(form != "voc" for form, _ in found):
        raise ModelExportError(
            f"{folder} holds several data sets; give each of them: {', '.join(inner)}"
        )
    if not found:
        raise ModelExportError(
            f"{folder} has no annotations of a known form: no .yaml with `names`, no .json with "
            "COCO's lists, no .csv, no .xml, and no labels of YOLO with classes.txt; labels "
            "without it need --form yolo --names"
        )
    (form, sign), *others = found
    more = "".join(f"; it also has {other}: --form {name} reads that" for name, other in others)
    return Found(form, f"{folder.name}: read as {TITLES[form]}, for its {sign}{more}")


def _yolo_sign(folder: Path) -> str | None:
    described = description(folder) or names_file(folder)
    if described and (described.suffix != ".txt" or _has_labels(folder)):
        return described.name
    return "folder labels" if _has_labels(folder, deep=False) else None


def _has_labels(folder: Path, *, deep: bool = True) -> bool:
    """Whether there are text files in folders named `labels`, or beside the images."""
    splits = split_folders(folder)
    places = [folder, *splits]
    labels = [inner for place in places if (inner := subfolder(place, "labels"))]
    labels += [inner for place in labels[:1] for inner in split_folders(place)]
    files = (path for place in labels for path in files_in(place, (LABEL_SUFFIX,)))
    if any(path.stem != "classes" for path in files):
        return True
    images = subfolder(folder, "images")
    beside = [*places, *([images, *split_folders(images)] if images else ())]
    return deep and any(
        plain_file_name(f"{image.stem}{LABEL_SUFFIX}") in labels
        for place in beside
        for labels in [similar_files(place)]
        for image in image_files(place)
    )


def _coco_sign(folder: Path) -> str | None:
    # Roboflow's files of all splits have one name.
    return first_few(dict.fromkeys(path.name for path in coco_files(folder))) or None


def _csv_sign(folder: Path) -> str | None:
    places = [folder, *split_folders(folder)]
    return (
        first_few(dict.fromkeys(path.name for place in places for path in csv_files(place))) or None
    )


def _xml_sign(folder: Path) -> str | None:
    return "XML files" if xml_files(folder) else None
