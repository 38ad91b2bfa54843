"""report.html: a whole run on one page, which needs no other file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_export.data.annotations import AnnotatedImage
from model_export.data.image_files import read_image
from model_export.files import write_atomically
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.measure.matching import taken_by
from model_export.measure.thresholds import Quality, Thresholds
from model_export.report.html import Page, jpeg
from model_export.report.sheets import sheet
from model_export.samples.geometry import Picture
from service.core.decode import Detections
from service.core.letterbox import letterbox
from service.core.suppress import DetectionOptions, iou_with

# Pictures on the page: height and width of each, and how many.
SIDE: Final = 320
EXAMPLES: Final = 6
WORST: Final = 4
# Boxes that overlap their object less are loose.
LOOSE_IOU: Final = 0.7
FAULTS: Final = (
    "missed objects",
    "ghosts, where there is no object",
    "objects taken for another class",
    f"loose boxes, with an IoU below {LOOSE_IOU:g}",
)
PLOTS: Final = {
    "labels.png": "The objects of the data",
    "losses.png": "Losses",
    "ap.png": "Average precision",
    "pr.png": "Precision and recall",
    "confidence.png": "Which confidence to ask for",
    "confusion.png": "Confusion matrix",
}


@dataclass(frozen=True, slots=True)
class RunContent:
    """The content of the page, besides the plots.

    Attributes:
        metrics: COCO metrics of the best weights.
        thresholds: The options that measured best, and what they find.
        class_names: Class id to name.
        sheets: Title to picture of the training data, (h, w, 3) uint8 BGR.
        speed: The speed of the exported model in a sentence; none if it is empty.
    """

    metrics: Metrics
    thresholds: Thresholds
    class_names: Sequence[str]
    sheets: Mapping[str, NDArray[np.uint8]]
    speed: str = ""


def write_run_page(path: Path, content: RunContent) -> None:
    """Write the page; the plots are taken from beside it.

    Args:
        path: The file.
        content: The content to show.

    Raises:
        ModelExportError: A validation image cannot be read.
        OSError: A file cannot be read or written.
    """
    metrics, thresholds, class_names = content.metrics, content.thresholds, content.class_names
    page = Page(f"Training {path.parent.name}")
    page.paragraph(metrics.summary())
    page.table([("metric", "value"), *((n, _cell(metrics.overall[n])) for n in METRIC_NAMES)])
    if content.speed:
        page.paragraph(f"Speed of the exported model: {content.speed}")
    _add_thresholds(page, thresholds)
    for name, title in PLOTS.items():
        if (path.parent / name).is_file():
            page.heading(title)
            page.picture((path.parent / name).read_bytes(), "png", title)
    page.heading("Validation pictures: the truth at the left, the prediction at the right")
    page.picture(jpeg(_side_by_side(thresholds, class_names)), "jpeg", "truth and prediction")
    _add_faults(page, thresholds, class_names)
    for title, pixels in content.sheets.items():
        page.heading(title)
        page.picture(jpeg(pixels), "jpeg", title)
    _add_settings(page, path.with_name("config.json"))
    write_atomically(page.content(), path)


def _add_settings(page: Page, config: Path) -> None:
    """All settings of the run, its data among them."""
    if not config.is_file():
        return
    page.heading("Settings")
    settings = json.loads(config.read_text(encoding="utf-8"))
    page.table([("setting", "value"), *_flat(settings)])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value not in (None, "", [], ()):
            is_list = isinstance(value, list)
            yield f"{prefix}{name}", ", ".join(map(str, value)) if is_list else str(value)


def _add_thresholds(page: Page, thresholds: Thresholds) -> None:
    options = thresholds.options
    page.heading("Thresholds that measured best")
    if not thresholds.overall.f1:
        page.paragraph(
            "Nothing right was found, so that no thresholds are recommended.", warns=True
        )
        return
    page.paragraph(
        f"confidence {options.confidence:g} by {options.score_by}, {_suppression(options)}, on "
        f"{len(thresholds.images)} validation images; the exported model recommends them to the "
        "server"
    )
    titles = ("class", "confidence", "F1", "precision", "recall")
    by_class = [_quality_row(name, each) for name, each in thresholds.by_class.items()]
    page.table([titles, _quality_row("all", thresholds.overall), *by_class])
    page.paragraph("The best F1 of each set of options that was tried, at IoU 0.50:")
    tried = [(name, _cell(value)) for name, value in thresholds.tried.items()]
    page.table([("options", "F1"), *tried])


def _suppression(options: DetectionOptions) -> str:
    """The suppression and its number: the width of a Gaussian, or the IoU from which it acts."""
    if options.nms == "soft-gaussian":
        return f"{options.nms} of sigma {options.sigma:g}"
    return f"{options.nms} above IoU {options.iou:g}"


def _quality_row(name: str, each: Quality) -> tuple[str, ...]:
    numbers = each.f1, each.precision, each.recall
    return (name, f"{each.confidence:.2f}", *map(_cell, numbers))


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _side_by_side(thresholds: Thresholds, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 BGR: some validation pictures, those with objects first."""
    order = sorted(
        range(len(thresholds.images)), key=lambda i: len(thresholds.images[i].class_ids) == 0
    )
    return _pairs(thresholds, class_names, order[:EXAMPLES])


def _add_faults(page: Page, thresholds: Thresholds, class_names: Sequence[str]) -> None:
    """For each kind of fault, show the pictures that have most of it."""
    page.heading("Worst pictures by kind of fault: the truth at the left")
    pairs = zip(thresholds.found, thresholds.images, strict=True)
    counts = np.array([_faults(found, image) for found, image in pairs])
    for kind, name in enumerate(FAULTS):
        total = int(counts[:, kind].sum())
        page.paragraph(f"{name}: {total}")
        worst = np.argsort(-counts[:, kind], kind="stable")[:WORST]
        numbers = [int(number) for number in worst if counts[number, kind]]
        if numbers:
            page.picture(jpeg(_pairs(thresholds, class_names, numbers)), "jpeg", name)


def _pairs(
    thresholds: Thresholds, class_names: Sequence[str], numbers: Sequence[int]
) -> NDArray[np.uint8]:
    pictures = []
    for number in numbers:
        image, found = thresholds.images[number], thresholds.found[number]
        pixels = read_image(image.path)
        pictures.append(_small(Picture(pixels, image.boxes_xyxy, image.class_ids)))
        pictures.append(_small(Picture(pixels, found.boxes_xyxy, found.class_ids)))
    return sheet(pictures, class_names, 4)


def _small(picture: Picture) -> Picture:
    canvas, way_back = letterbox(picture.image, SIDE, SIDE)
    boxes = (picture.boxes_xyxy * way_back.ratio).astype(np.float32)
    return Picture(canvas, boxes, picture.class_ids)


def _faults(found: Detections, image: AnnotatedImage) -> tuple[int, int, int, int]:
    """The faults of one picture, in the order of `FAULTS`."""
    taken = taken_by(found, image)
    there = np.flatnonzero(taken >= 0)
    wrong = int((image.class_ids[taken[there]] != found.class_ids[there]).sum())
    overlaps = [
        iou_with(found.boxes_xyxy[each], image.boxes_xyxy[taken[each]][None])[0] for each in there
    ]
    loose = sum(overlap < LOOSE_IOU for overlap in overlaps)
    return len(image.class_ids) - len(there), len(taken) - len(there), wrong, loose
