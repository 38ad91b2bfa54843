"""One reader for every form of data set."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from model_export.data.annotations import Annotations, NamedBoxes, Reading, first_few
from model_export.data.class_names import read_names
from model_export.data.forms.coco import CocoFile, read_coco
from model_export.data.forms.coco_folder import coco_file, coco_files
from model_export.data.forms.csv_boxes import csv_files, read_csv, splits_of
from model_export.data.forms.detect import OF_SUFFIX, find_form
from model_export.data.forms.splits import (
    MissingFolderError,
    NoSplitError,
    is_all_for_training,
    names_of,
    no_split,
    split_folders,
)
from model_export.data.forms.voc import has_inner_splits, read_voc
from model_export.data.forms.yolo import read_yolo
from model_export.data.forms.yolo_layout import names_file, read_layout
from model_export.data.held_out import share_of
from model_export.data.sources import DataSource, FormName
from model_export.errors import ModelExportError

SPLITS: Final = ("train", "val", "test")


def read_annotations(
    source: Path,
    images: Path | None = None,
    *,
    split: str = "train",
    class_names: Sequence[str] | None = None,
) -> Annotations:
    """Read a data set of any form.

    Args:
        source: A file or a folder.
        images: The folder of the images of a COCO json or a CSV file (default: near the file).
        split: Which split, if there are several.
        class_names: Class id to name (default: the data set's own classes).

    Raises:
        ModelExportError: The form is not known, or the data set is damaged.
    """
    return read_source(DataSource(source, images, split), class_names)


def read_source(source: DataSource, class_names: Sequence[str] | None = None) -> Annotations:
    """Read data sets of any form, as one.

    The images are in the order of their file names, so that the same data give the same samples in
    whichever form they are.

    Args:
        source: Where they are.
        class_names: Class id to name (default: that of `source`, else the data sets' own).

    Raises:
        ModelExportError: A form is not known, or a data set is damaged.
    """
    reading = read(source)
    taken = share_of(reading.images, source.share) if source.share else reading.images
    notes = (*reading.notes, *_told_share(source, len(taken), len(reading.images)))
    reading = replace(reading, images=taken, notes=notes)
    return reading.annotations(class_names or source.class_names)


def read(source: DataSource) -> Reading:
    """All images of the split, in the order of their file names."""
    return _in_order([_read_one(path, source) for path in source.paths])


def _in_order(readings: Sequence[Reading]) -> Reading:
    reading = readings[0] if len(readings) == 1 else _joined(readings)
    images = sorted(reading.images, key=lambda image: (image.path.name, image.path))
    return replace(reading, images=images, notes=(*reading.notes, *_told_repeats(images)))


def class_names_of(source: DataSource, validation: DataSource) -> tuple[str, ...] | None:
    """The names of the classes of a training, if the training data alone do not tell them.

    Forms that do not number their classes name only those with boxes in the split, so that those of
    the validation data belong to them too.

    Returns:
        Class id to name, or None for those of `source`.
    """
    if source.class_names:
        return None
    reading = read(source)
    if reading.numbered or not reading.class_names:
        return None
    return united_names([reading, read(validation)])


def united_names(readings: Sequence[Reading]) -> tuple[str, ...]:
    """The class names of several readings: in their order, or sorted if none numbers them."""
    lists = [reading.class_names for reading in readings]
    return _united(lists, numbered=any(reading.numbered for reading in readings))


def read_coco_file(source: DataSource) -> CocoFile | None:
    """The COCO json of a source, with the source's images only; None if it is no single json."""
    if source.more or (source.form or find_form(source.path).form) != "coco":
        return None
    file = _coco(source.path, source)
    if source.share is None:
        return file
    taken = share_of(read(source).images, source.share)
    return file.only({image.image_id for image in taken})


def has_own_split(source: DataSource, split: str) -> bool:
    """Whether a data set may have this split; its reader says so if it does not."""
    path = source.path
    form = source.form or OF_SUFFIX.get(path.suffix.lower())
    if form == "csv" and path.is_file():
        return not splits_of(path).isdisjoint(names_of(split))
    return path.is_dir() or form == "yolo"


def has_split(source: DataSource, split: str) -> bool:
    """Whether all data sets have this split and its files, which are read to find out.

    Raises:
        ModelExportError: As in `read`.
    """
    if not has_own_split(source, split):
        return False
    with suppress(NoSplitError, MissingFolderError):
        read(replace(source, split=split))
        return True
    return False


def is_divided(source: DataSource) -> bool:
    """Whether a folder says which of its images are of which split."""
    path, form = source.path, source.form or find_form(source.path).form
    folders = [path, path / "images"]
    if any(split_folders(folder) for folder in folders if folder.is_dir()):
        return True
    files = {"coco": coco_files, "csv": csv_files}
    if form in files:
        found = files[form](path)
        return len(found) > 1 or any(not is_all_for_training(each, path, "train") for each in found)
    if form == "voc":
        return (path / "ImageSets").is_dir() or has_inner_splits(path)
    return form == "yolo" and bool(read_layout(path).splits)


def read_splits(source: DataSource) -> dict[str, Reading]:
    """All of train, val and test that data sets have; one without splits is all for training.

    Raises:
        ModelExportError: As in `read`, or a data set has none of them.
    """
    found = dict[str, list[Reading]]()
    for path in source.paths:
        splits = _splits_of_one(replace(source, path=path, more=()))
        if not splits:
            raise no_split(path, "train")
        for split, reading in splits.items():
            found.setdefault(split, []).append(reading)
    return {split: _in_order(found[split]) for split in SPLITS if split in found}


def _splits_of_one(source: DataSource) -> dict[str, Reading]:
    found = {}
    for split in SPLITS:
        if split == "train" or has_own_split(source, split):
            try:
                found[split] = _read_one(source.path, replace(source, split=split))
            except NoSplitError:
                continue
            except MissingFolderError as error:
                # Many data sets name a folder for tests, which nobody was given.
                if split != "test" or "train" not in found:
                    raise
                train = found["train"]
                note = f"left out the split test: {error}"
                found["train"] = replace(train, notes=(*train.notes, note))
    return found


def _read_one(path: Path, source: DataSource) -> Reading:
    form, note = (source.form, "") if source.form else find_form(path)
    match form:
        case "coco":
            reading = _coco(path, source).reading()
        case "yolo":
            reading = read_yolo(read_layout(path, source.class_names), source.split)
        case "voc":
            _refuse_file(path, form)
            reading = _numbered_by_file(path, read_voc(path, source.split))
        case "csv":
            reading = _numbered_by_file(path, read_csv(path, source.images, source.split))
    return replace(reading, notes=(*([note] if note else ()), *reading.notes))


def _coco(path: Path, source: DataSource) -> CocoFile:
    file = coco_file(path, source.split) if path.is_dir() else path
    return read_coco(file, source.images)


def _refuse_file(path: Path, form: FormName) -> None:
    if not path.is_dir():
        raise ModelExportError(f"{path} is no folder, which data of the form {form} are")


def _numbered_by_file(path: Path, reading: Reading) -> Reading:
    """The classes in the order of classes.txt, if there is one; others follow, sorted."""
    listed = names_file(path if path.is_dir() else path.parent)
    if listed is None:
        return reading
    names = _united([read_names(listed), reading.class_names], numbered=True)
    return replace(reading, class_names=names, numbered=True)


def _joined(readings: Sequence[Reading]) -> Reading:
    """Several data sets as one; ids are counted anew, because each set has its own."""
    of_set = [{image.path.resolve() for image in reading.images} for reading in readings]
    owners = Counter(path for paths in of_set for path in paths)
    if twice := [path for path, count in owners.items() if count > 1]:
        raise ModelExportError(f"{min(twice)} is in two of the data sets; give each of them once")
    images = [image for reading in readings for image in reading.images]
    return Reading(
        source=readings[0].source,
        images=[_renumbered(image, at) for at, image in enumerate(images, start=1)],
        class_names=united_names(readings),
        numbered=any(reading.numbered for reading in readings),
        crowd=sum(reading.crowd for reading in readings),
        notes=tuple(note for reading in readings for note in reading.notes),
    )


def _renumbered(image: NamedBoxes, number: int) -> NamedBoxes:
    return image._replace(image_id=number)


def _united(lists: Sequence[Sequence[str]], *, numbered: bool) -> tuple[str, ...]:
    """The names of several lists once, in their order, or sorted if it means nothing."""
    names = dict.fromkeys(name for names in lists for name in names)
    return tuple(names if numbered else sorted(names))


def _told_repeats(images: Sequence[NamedBoxes]) -> list[str]:
    counts = Counter(image.path for image in images)
    twice = [path for path, count in counts.items() if count > 1]
    return [f"image files that are listed more than once: {first_few(twice)}"] if twice else []


def _told_share(source: DataSource, taken: int, all_: int) -> list[str]:
    if source.share is None:
        return []
    part = "held out for validation" if source.share.held_out else "left for training"
    return [f"{taken} of {all_} images {part}: {source.share.described}"]
