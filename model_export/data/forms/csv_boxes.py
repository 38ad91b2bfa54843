"""The reader of CSV files with a row for each box."""

import csv
import io
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_export.data.annotations import (
    MAX_SHARE,
    NamedBoxes,
    Reading,
    first_few,
    known_size,
    names_in,
)
from model_export.data.forms.csv_columns import AUTOML, HEADERLESS, SPLITS, columns_of, notes_on
from model_export.data.forms.found_images import ImageFinder, image_files
from model_export.data.forms.splits import (
    folder_of_split,
    is_all_for_training,
    names_of,
    no_split,
)
from model_export.data.image_files import header_size
from model_export.data.texts import read_text
from model_export.errors import ModelExportError

CSV_SUFFIXES: Final = (".csv", ".tsv")
# Roboflow's name for the file in the folder of a split's images, all of which belong to it.
WHOLE_FOLDER: Final = "_annotations.csv"
# Lists of classes: those of RetinaNet's form, by Roboflow and others, and those of Open Images.
CLASS_LISTS: Final = frozenset(
    {"_classes", "classes", "class_list", "class-descriptions", "class-descriptions-boxable"}
)
# The values of IsGroupOf; -1 is "not known".
GROUPS: Final = {"0": False, "false": False, "-1": False, "1": True, "true": True}
# A first line that tells Excel the delimiter.
DELIMITER_LINE: Final = re.compile(r"sep=([,;\t])\s*")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the file, with the columns by the names of `csv_columns.COLUMNS`."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """A file's rows.

    Attributes:
        path: The file.
        rows: The rows of all splits.
        has_splits: Whether a column says which split a row belongs to.
        relative: Whether the file's form says that coordinates are shares of the image.
        notes: How the columns were understood, in lines for a person.
    """

    path: Path
    rows: Sequence[_Row]
    has_splits: bool
    relative: bool
    notes: Sequence[str] = ()


def read_csv(source: Path, images: Path | None = None, split: str = "train") -> Reading:
    """Read the boxes of a CSV file: TensorFlow's columns, Roboflow's, AutoML's, and similar ones.

    Coordinates are pixels, or shares of the image if none is far above 1. A row without a class and
    coordinates stands for an image without objects. Groups of Open Images are left out as crowds.
    The classes are those of the split, sorted.

    Args:
        source: The file, or a folder with one for each split.
        images: The folder of the images (default: the file's folder, or images in it).
        split: A folder, or a value of the column of splits; of a file without such a column, all
            rows are taken.

    Raises:
        ModelExportError: The file cannot be read, or a row makes no sense; the message names it.
    """
    path = csv_file(source, split) if source.is_dir() else source
    table = _table(path)
    rows = _of_split(table, split)
    folder = images or path.parent
    named = re.sub("_labels$", "", path.stem, flags=re.IGNORECASE)
    usual = [folder / "images", folder / named, folder.parent / "images", folder.parent]
    finder = ImageFinder([folder, *usual])
    of_image = defaultdict[Path, list[_Row]](list)
    for row in rows:
        of_image[finder.find(row.values["image"])].append(row)
    finder.refuse_strays()
    elsewhere = {finder.find(row.values["image"]) for row in table.rows} - of_image.keys()
    unlisted = [each for each in _unlisted(folder, of_image) if each not in elsewhere]
    if path.name == WHOLE_FOLDER:
        of_image.update((each, []) for each in unlisted)
    relative = table.relative or _are_shares(path, rows)
    boxes = [
        _image(path, image, number, of_image[image], relative=relative)
        for number, image in enumerate(sorted(of_image), start=1)
    ]
    notes = (*table.notes, *_notes(path, unlisted, relative=relative))
    groups = sum(_is_group(path, row) for row in rows if _has_box(row))
    return Reading(path, boxes, names_in(boxes), numbered=False, crowd=groups, notes=notes)


def csv_file(folder: Path, split: str) -> Path:
    """The file of a split: in a folder of its own, or named after it, or the only one.

    Raises:
        ModelExportError: There is none, or there are several.
    """
    stems = {path.stem.lower(): path for path in csv_files(folder)}
    named = (
        stems.get(each)
        for name in names_of(split)
        for each in (name, f"{name}_labels", f"{name}-annotations-bbox")
    )
    if found := next((path for path in named if path), None):
        return found
    files = csv_files(folder)
    if len(files) == 1 and splits_of(files[0]):
        return files[0]
    place = folder_of_split(folder, split)
    files = csv_files(place)
    if len(files) != 1:
        listed = (
            f": {first_few(path.name for path in files)}; name the one to read" if files else ""
        )
        raise ModelExportError(f"{place} has {len(files)} CSV files{listed}")
    if place == folder and not is_all_for_training(files[0], folder, split):
        raise no_split(folder, split, [files[0].name])
    return files[0]


def csv_files(folder: Path) -> list[Path]:
    """The CSV files in a folder, sorted; hidden files and lists of classes are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in CSV_SUFFIXES
        and not path.name.startswith(".")
        and path.stem.lower() not in CLASS_LISTS
    )


def splits_of(path: Path) -> set[str]:
    """The splits that a CSV file has a column for; none, if it has no such column."""
    table = _table(path)
    return {_split(path, row) for row in table.rows} if table.has_splits else set()


def _table(path: Path) -> _Table:
    numbered = _lines(path)
    lines = [line for _, line in numbered]
    columns = columns_of(path, lines)
    start = 0 if columns in (AUTOML, HEADERLESS) else 1
    rows = [_Row(number, _named(path, number, columns, line)) for number, line in numbered[start:]]
    written = {row.values.get("split", "").upper() for row in rows}
    has_splits = not written.isdisjoint(SPLITS) and written <= {*SPLITS, ""}
    notes = notes_on(path, lines[0], columns, has_splits=has_splits) if start else ()
    return _Table(path, rows, columns == AUTOML or has_splits, columns == AUTOML, tuple(notes))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The values of each line that has any, and the number of the line, where they end."""
    text = read_text(path)
    stated = DELIMITER_LINE.match(text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = stated[1] if stated else max(",;\t", key=first.count)
    # Any end of a line is one, and a quoted value may have some.
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    try:
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise ModelExportError(f"{path}, line {reader.line_num}: no CSV: {error}") from error
    return [
        (number, line)
        for number, line in lines[1 if stated else 0 :]
        if any(value.strip() for value in line)
    ]


def _named(path: Path, line: int, columns: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    named = {name: value.strip() for name, value in zip(columns, values, strict=False) if name}
    if not named.get("image"):
        raise ModelExportError(f"{path}, line {line}: the row names no image")
    return named


def _of_split(table: _Table, split: str) -> Sequence[_Row]:
    if not table.has_splits:
        return table.rows
    of_split = defaultdict(list)
    for row in table.rows:
        of_split[_split(table.path, row)].append(row)
    name = next((name for name in names_of(split) if name in of_split), None)
    if name is None:
        raise no_split(table.path, split, of_split)
    return of_split[name]


def _split(path: Path, row: _Row) -> str:
    written = row.values.get("split", "").upper()
    if written not in SPLITS:
        raise ModelExportError(
            f"{path}, line {row.line}: the set is {written!r}; it should be TRAIN, VALIDATION "
            "or TEST"
        )
    return SPLITS[written]


def _unlisted(folder: Path, listed: Mapping[Path, object]) -> list[Path]:
    """Images in the folder that no row names."""
    return [image for image in image_files(folder) if image not in listed] if listed else []


def _notes(path: Path, unlisted: Sequence[Path], *, relative: bool) -> Iterator[str]:
    if relative:
        yield f"{path.name}: the coordinates are shares of the image"
    if unlisted:
        count, names = len(unlisted), first_few(image.name for image in unlisted)
        meaning = "are background" if path.name == WHOLE_FOLDER else "are not used"
        yield f"{count} images that {path.name} does not list {meaning}: {names}"


def _are_shares(path: Path, rows: Sequence[_Row]) -> bool:
    """Whether no coordinate is far above 1, and some are broken."""
    corners = [each for row in rows if _has_box(row) for each in _numbers(path, row)]
    return (
        bool(corners)
        and max(corners) <= MAX_SHARE
        and not all(each.is_integer() for each in corners)
    )


def _has_box(row: _Row) -> bool:
    return any(row.values.get(name) for name in ("name", "x1", "y1", "x2", "y2"))


def _is_group(path: Path, row: _Row) -> bool:
    """Whether a box surrounds many objects that have no boxes of their own."""
    written = row.values.get("group") or "0"
    if written.lower() not in GROUPS:
        raise ModelExportError(f"{path}, line {row.line}: IsGroupOf is {written!r}, not 0 or 1")
    return GROUPS[written.lower()]


def _image(
    path: Path, image: Path, number: int, rows: Sequence[_Row], *, relative: bool
) -> NamedBoxes:
    boxed = [row for row in rows if _has_box(row) and not _is_group(path, row)]
    size = _size(path, rows)
    corners = [_numbers(path, row) for row in boxed]
    names = [_name(path, row) for row in boxed]
    if relative and corners:
        size = header_size(image)
        if size is None:
            # It is refused when its pixels are read.
            return NamedBoxes(image, number, None, (), ())
        height, width = size
        corners = [(x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in corners]
    return NamedBoxes(image, number, size, corners, names)


def _size(path: Path, rows: Sequence[_Row]) -> tuple[int, int] | None:
    """The size that the rows of an image state, if there are columns for it."""
    stated = dict[tuple[int, int], int]()
    for row in rows:
        try:
            size = known_size(row.values.get("height"), row.values.get("width"))
        except (ValueError, OverflowError):
            raise ModelExportError(
                f"{path}, line {row.line}: the width or height is no number"
            ) from None
        if size:
            stated.setdefault(size, row.line)
    if len(stated) > 1:
        ((height, width), line), ((other_height, other_width), other), *_ = stated.items()
        raise ModelExportError(
            f"{path}: one image is {width} x {height} in line {line}, and {other_width} x "
            f"{other_height} in line {other}; correct one of them"
        )
    return next(iter(stated), None)


def _name(path: Path, row: _Row) -> str:
    if name := row.values.get("name"):
        return name
    raise ModelExportError(f"{path}, line {row.line}: the box has no class")


def _numbers(path: Path, row: _Row) -> tuple[float, float, float, float]:
    def number(name: str) -> float:
        text = row.values.get(name, "")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            cure = "; a point is its only mark" if "," in text else ""
            raise ModelExportError(
                f"{path}, line {row.line}: {name} is {text!r}, which is no number{cure}"
            )
        return value

    return number("x1"), number("y1"), number("x2"), number("y2")
