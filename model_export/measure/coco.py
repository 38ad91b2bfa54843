"""COCO's metrics of detections against annotations, as pycocotools computes them."""

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model_export.data.forms.coco import CocoFile, read_coco
from model_export.errors import ModelExportError

# In the order of pycocotools. AP and AR average over IoU 0.50 to 0.95 unless the name says
# otherwise; small, medium and large are areas below 32^2, below 96^2 and above, in pixels; the
# number after AR is how many detections of an image count.
METRIC_NAMES: Final = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large"),
)
# The recalls at which precision is sampled, as shares of the annotations.
RECALLS: Final = tuple(i / 100 for i in range(101))


class CocoBox(TypedDict):
    """One box in COCO's format; bbox is x, y, width, height in image pixels."""

    image_id: int
    category_id: int
    bbox: list[float]


class CocoResult(CocoBox):
    """One detection in COCO's result format."""

    score: float


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Annotated images to measure on.

    Attributes:
        images: Image id to file.
        categories: Category id to name.
        truth: The annotations, indexed.
    """

    images: Mapping[int, Path]
    categories: Mapping[int, str]
    truth: COCO

    def as_one_class(self, name: str) -> "CocoSet":
        """The same images with one category for all boxes."""
        entries = [{**each, "category_id": 1} for each in self.truth.dataset["annotations"]]
        categories = {1: name}
        return CocoSet(self.images, categories, _indexed(self.images, categories, entries))


@dataclass(frozen=True, slots=True)
class Metrics:
    """COCO's box metrics, 0 to 1; None where the annotations have nothing to measure with.

    Attributes:
        overall: Metric, as in `METRIC_NAMES`, to value.
        ap_by_class: Class name to its AP.
        ap50_by_class: Class name to its AP at IoU 0.50.
        precision_by_class: Class name to its precision at IoU 0.50 and each of `RECALLS`, for the
            classes that are annotated.
    """

    overall: Mapping[str, float | None]
    ap_by_class: Mapping[str, float | None]
    ap50_by_class: Mapping[str, float | None] = field(default_factory=dict)
    precision_by_class: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def numbers(self) -> dict[str, Mapping[str, float | None]]:
        """Everything but the curves, by the names of the attributes."""
        return {
            "overall": self.overall,
            "ap_by_class": self.ap_by_class,
            "ap50_by_class": self.ap50_by_class,
        }

    def to_json(self) -> str:
        """`numbers` as a JSON object."""
        return json.dumps(self.numbers(), indent=2)

    def summary(self) -> str:
        """AP and AP50 in one line, with four digits."""
        values = {name: self.overall[name] for name in ("AP", "AP50")}
        return ", ".join(f"{name} {value or 0:.4f}" for name, value in values.items())


def read_coco_set(annotations: Path, folder: Path) -> CocoSet:
    """Read a COCO json whose images are in a folder.

    Raises:
        ModelExportError: The file is no COCO json or contradicts itself, or an image is missing.
    """
    coco = coco_set_of(read_coco(annotations, folder))
    refuse_missing_images(coco)
    return coco


def refuse_missing_images(coco: CocoSet) -> None:
    """Refuse a set whose files are not there.

    Raises:
        ModelExportError: An image is missing.
    """
    missing = [path for path in coco.images.values() if not path.is_file()]
    if missing:
        raise ModelExportError(f"{len(missing)} images are missing, the first {missing[0]}")


def coco_set_of(file: CocoFile) -> CocoSet:
    """The content of a COCO json, with its crowds and the areas of its masks."""
    images = {image.image_id: image.path for image in file.images}
    entries = [
        {
            "image_id": each.image_id,
            "category_id": each.category_id,
            "bbox": list(each.box_xywh),
            "area": each.area,
            "iscrowd": int(each.is_crowd),
        }
        for each in file.annotations
    ]
    return CocoSet(images, file.categories, _indexed(images, file.categories, entries))


def make_coco_set(
    images: Mapping[int, Path], categories: Mapping[int, str], boxes: Iterable[CocoBox]
) -> CocoSet:
    """A set from its parts; areas are those of the boxes, and none of them is a crowd.

    Args:
        images: Image id to file.
        categories: Category id to name.
        boxes: The annotations.
    """
    return CocoSet(images, categories, _indexed(images, categories, boxes))


def measure(coco: CocoSet, results: Sequence[CocoResult]) -> Metrics:
    """Compare detections with the annotations."""
    found = _indexed(coco.images, coco.categories, results)
    # pycocotools prints to stdout, which belongs to the command's own results.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco.truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    known = [None if value < 0 else float(value) for value in evaluation.stats]
    # (IoU, recall, class, area, detections): all areas, up to 100 detections
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = [coco.categories[category] for category in evaluation.params.catIds]
    # The first IoU is 0.50.
    at_50 = {name: precision[0, :, k] for k, name in enumerate(names)}
    return Metrics(
        overall=dict(zip(METRIC_NAMES, known, strict=True)),
        ap_by_class={name: _mean_known(precision[:, :, k]) for k, name in enumerate(names)},
        ap50_by_class={name: _mean_known(curve) for name, curve in at_50.items()},
        precision_by_class={
            name: tuple(curve.tolist()) for name, curve in at_50.items() if curve.min() >= 0
        },
    )


def _indexed(
    images: Iterable[int], categories: Iterable[int], boxes: Iterable[Mapping[str, Any]]
) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category} for category in categories],
        "annotations": [_completed(box, number) for number, box in enumerate(boxes, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _completed(box: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A box with all that pycocotools needs; ids count from 1, because it takes 0 for no match."""
    _, _, width, height = box["bbox"]
    return {"iscrowd": 0, "area": width * height, **box, "id": number}


def _mean_known(precision: NDArray[np.float64]) -> float | None:
    """The mean of all values but -1, which stands for nothing to measure."""
    known = precision[precision >= 0]
    return float(known.mean()) if known.size else None
