"""The meaning of a CSV file's columns: by their titles, or by their place where there are none."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from model_export.data.forms.splits import SPLIT_NAMES
from model_export.errors import ModelExportError

# The names that tools give to each column, in lower case, with letters and digits only; where a
# file has several of them, the first of these is taken.
COLUMNS: Final = {
    "image": ("filename", "imagename", "filepath", "imagepath", "path", "image", "file", "imageid"),
    "name": ("classname", "labelname", "class", "label", "name", "category"),
    "x1": ("xmin", "x1", "left", "bboxx1"),
    "y1": ("ymin", "y1", "top", "bboxy1"),
    "x2": ("xmax", "x2", "right", "bboxx2"),
    "y2": ("ymax", "y2", "bottom", "bboxy2"),
}
OPTIONAL: Final = {
    "width": ("imagewidth", "width"),
    "height": ("imageheight", "height"),
    "split": ("split", "set", "subset", "partition"),
    "group": ("isgroupof",),
}
# The columns of files without a header: Google AutoML's, and those of keras-retinanet.
AUTOML: Final = ("split", "image", "name", "x1", "y1", "", "", "x2", "y2", "", "")
HEADERLESS: Final = ("image", "x1", "y1", "x2", "y2", "name")
AUTOML_SPLITS: Final = {
    "TRAIN": "train",
    "TRAINING": "train",
    "VALIDATE": "val",
    "VALIDATION": "val",
    "TEST": "test",
    "UNASSIGNED": "train",
}
# The values of a column of splits, in upper case.
SPLITS: Final = AUTOML_SPLITS | {name.upper(): names[0] for names in SPLIT_NAMES for name in names}


def columns_of(path: Path, lines: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The meaning of each column, which the first line says or shows.

    Args:
        path: The file, for messages.
        lines: Its lines, split into values.

    Returns:
        For each column a name of `COLUMNS` or `OPTIONAL`, "" if it is not used.

    Raises:
        ModelExportError: A column is missing.
    """
    first = lines[0] if lines else []
    if first and first[0].strip().upper() in AUTOML_SPLITS:
        return AUTOML
    columns = _once(first, lines[1:])
    if missing := COLUMNS.keys() - columns:
        if len(first) == len(HEADERLESS) and len(missing) > 3 and _is_number_or_empty(first[1:5]):
            return HEADERLESS
        raise ModelExportError(
            f"{path}, line 1: no column for {', '.join(sorted(missing))}; the first line should "
            "name the columns filename, class, xmin, ymin, xmax, ymax, and xmax is xmin plus the "
            "width of the box"
        )
    if _are_of_boxes(columns, lines[1:]):
        return tuple("" if name in ("width", "height") else name for name in columns)
    return columns


def _once(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The meanings of titled columns, each at most once."""
    plain = ["".join(filter(str.isalnum, title)).lower() for title in titles]
    columns = [""] * len(titles)
    for meaning, all_ in (COLUMNS | OPTIONAL).items():
        places = sorted((all_.index(title), at) for at, title in enumerate(plain) if title in all_)
        if meaning == "name" and len(places) > 1:
            # Beside the names of the classes, their numbers have a column of their own.
            places.sort(key=lambda place: _is_number_or_empty(_column(rows, place[1])))
        if places:
            columns[places[0][1]] = meaning
    return tuple(columns)


def _are_of_boxes(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the columns of width and height have the boxes' sizes, and not the images'."""
    if not {"width", "height"} <= {*columns}:
        return False
    sides = [
        [row[columns.index(name)] if len(row) == len(columns) else "" for name in side]
        for row in rows
        for side in (("x1", "x2", "width"), ("y1", "y2", "height"))
    ]
    of_boxes = [side for side in sides if all(value.strip() for value in side[:2])]
    return bool(of_boxes) and all(map(_is_length, of_boxes))


def _is_length(side: Sequence[str]) -> bool:
    """Whether a text of a length is the way from a start to an end, to a pixel."""
    try:
        start, end, length = map(float, side)
    except ValueError:
        return False
    return abs(end - start - length) <= 1


def _column(rows: Sequence[Sequence[str]], at: int) -> list[str]:
    return [row[at] for row in rows if len(row) > at]


def _is_number_or_empty(values: Sequence[str]) -> bool:
    return all(
        value.strip().lstrip("-").replace(".", "", 1).isdigit() or not value.strip()
        for value in values
    )


def notes_on(
    path: Path, titles: Sequence[str], columns: Sequence[str], *, has_splits: bool
) -> Iterator[str]:
    """A note for each column that could have meant something, and is not used.

    Args:
        path: The file.
        titles: Its first line.
        columns: The answer of `columns_of`.
        has_splits: Whether the column of splits holds them.
    """
    used = {meaning: title for title, meaning in zip(titles, columns, strict=True) if meaning}
    meanings = [_meaning(title) for title in titles]
    for title, meaning, column in zip(titles, meanings, columns, strict=True):
        if meaning and not column and meaning not in used:
            yield f"{path.name}: the column {title} has the boxes' sizes, not the images'"
        elif meaning and not column and title != used[meaning]:
            yield f"{path.name}: the column {used[meaning]} is used, and {title} is not"
    if "split" in used:
        does = "says which split a row is of" if has_splits else "has other values than splits"
        yield f"{path.name}: the column {used['split']} {does}"


def _meaning(title: str) -> str:
    """The meaning of a column by its title, "" if it has none."""
    plain = "".join(filter(str.isalnum, title)).lower()
    return next((name for name, all_ in (COLUMNS | OPTIONAL).items() if plain in all_), "")
