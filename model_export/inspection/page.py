"""An inspection as a page: HTML with its pictures inside, or Markdown with pictures beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.checked_images import CheckedImages
from model_export.errors import ModelExportError
from model_export.files import write_atomically
from model_export.inspection.inspection import Inspection
from model_export.inspection.statistics import NetworkView
from model_export.inspection.tables import class_table, legend, sizes
from model_export.report.html import Page, jpeg
from model_export.report.sheets import sheet
from model_export.samples.geometry import Picture
from service.core.letterbox import letterbox

COLUMNS: Final = 4
# The pictures are drawn in their order, so that the same data give the same page.
SEED: Final = 0


def write_page(inspection: Inspection, path: Path, pictures: int) -> None:
    """Write an inspection, with examples of the images as the network sees them.

    Args:
        inspection: The data to show.
        path: A .html or .md file; a Markdown page has its pictures beside it.
        pictures: How many images to show of each data set, at most.

    Raises:
        ModelExportError: An image cannot be read, or a file cannot be written.
    """
    sheets = dict(_sheets(inspection, pictures))
    try:
        if path.suffix == ".html":
            write_atomically(_html(inspection, sheets), path)
            return
        for title, content in sheets.items():
            write_atomically(content, path.with_name(f"{path.stem}-{title}.jpg"))
        write_atomically(_markdown(inspection, path.stem, list(sheets)).encode(), path)
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error.strerror}") from error


def _sheets(inspection: Inspection, pictures: int) -> Iterator[tuple[str, bytes]]:
    """The name of each data set, and a JPEG of some of its images."""
    for title, data in (("train", inspection.train), ("val", inspection.val)):
        if data and pictures:
            yield title, jpeg(_examples(data, inspection.view, pictures))


def _examples(data: CheckedImages, view: NetworkView, count: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR: a sheet of images, those with boxes first."""
    order = np.random.default_rng(SEED).permutation(len(data)).tolist()
    order.sort(key=lambda number: len(data.images[number].boxes_xyxy) == 0)
    source = data.pictures(None)
    chosen = [_seen(source[number], view) for number in order[:count]]
    return sheet(chosen, data.class_names, COLUMNS)


def _seen(picture: Picture, view: NetworkView) -> Picture:
    canvas, way_back = letterbox(picture.image, view.height, view.width)
    boxes = (picture.boxes_xyxy * way_back.ratio).astype(np.float32)
    return Picture(canvas, boxes, picture.class_ids)


def _lines(inspection: Inspection) -> Iterator[str]:
    """Lines about each data set: what was read, and what was left out."""
    for title, data in (("Training", inspection.train), ("Validation", inspection.val)):
        yield from (f"{title}: {line}" for line in (data.report() if data else ()))
    yield sizes(inspection.train_statistics)


def _html(inspection: Inspection, sheets: dict[str, bytes]) -> bytes:
    page = Page("Inspection of a data set")
    for line in _lines(inspection):
        page.paragraph(line)
    for warning in inspection.warnings():
        page.paragraph(warning, warns=True)
    page.table(class_table(inspection))
    page.paragraph(legend(inspection))
    for title, document in sheets.items():
        page.heading(title)
        page.picture(document, "jpeg", f"images of {title} with their boxes")
    return page.content()


def _markdown(inspection: Inspection, stem: str, sheets: Sequence[str]) -> str:
    titles, *rows = class_table(inspection)
    table = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join(
        [
            "# Inspection of a data set\n",
            *(f"{_escaped(line)}\n" for line in _lines(inspection)),
            *(f"> **Warning:** {_escaped(each)}\n" for each in inspection.warnings()),
            *(f"| {' | '.join(map(_escaped, row))} |" for row in table),
            f"\n{_escaped(legend(inspection))}\n",
            *(f"![Images of {title} with their boxes]({stem}-{title}.jpg)\n" for title in sheets),
        ]
    )


def _escaped(text: str) -> str:
    """Text that means itself in Markdown."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#" else letter for letter in plain)
