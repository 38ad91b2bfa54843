"""The counts of an inspection as tables of text."""

from collections.abc import Sequence
from typing import Final

from model_export.data.annotations import first_few
from model_export.inspection.inspection import Inspection
from model_export.inspection.statistics import ClassCount, Statistics

# Rows of the table that is printed before a training.
MOST_ROWS: Final = 30
# Sizes of images that are listed.
MOST_SIZES: Final = 3

Row = tuple[str, ...]


def class_table(inspection: Inspection) -> list[Row]:
    """A row of titles, and one for each class; sides are in network pixels."""
    val = inspection.val_statistics
    titles: Row = ("class", "boxes", "images", "side", "small", "medium", "large", "lost")
    rows: list[Row] = [(*titles, "val boxes", "val images") if val else titles]
    for class_id, name in enumerate(inspection.train.class_names):
        row: Row = (name, *_cells(inspection.train_statistics.classes[class_id]))
        if val:
            counted = val.classes[class_id]
            row = (*row, str(counted.boxes), str(counted.images))
        rows.append(row)
    return rows


def legend(inspection: Inspection) -> str:
    """The meaning of the table's columns."""
    view = inspection.view
    return (
        f"side: median of the square roots of areas, in pixels at {view.width} x {view.height}; "
        f"small below 32, large from 96; lost: a side below {view.min_side:g}, no target"
    )


def sizes(counts: Statistics) -> str:
    """The commonest sizes of images, in one line."""
    listed = [f"{width} x {height} ({count})" for (height, width), count in counts.sizes]
    return f"sizes of images in pixels: {first_few(listed, MOST_SIZES)}"


def report(inspection: Inspection) -> list[str]:
    """The table and the warnings, in lines for a terminal."""
    rows = class_table(inspection)
    lines = aligned(rows[: MOST_ROWS + 1])
    if len(rows) > MOST_ROWS + 1:
        lines.append(f"and {len(rows) - MOST_ROWS - 1} more classes, which `inspect` lists")
    legends = [legend(inspection), sizes(inspection.train_statistics)]
    return [*lines, *legends, *(f"warning: {each}" for each in inspection.warnings())]


def aligned(rows: Sequence[Row]) -> list[str]:
    """Rows as lines, the first column at the left and the others at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(counts: ClassCount) -> Row:
    side = f"{counts.side:.0f}" if counts.boxes else "-"
    numbers = (counts.small, counts.medium, counts.large, counts.lost)
    return (str(counts.boxes), str(counts.images), side, *map(str, numbers))
