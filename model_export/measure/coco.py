"""COCO annotations, and the metrics of detections against them."""

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

from model_export.errors import ModelExportError

# In the order of pycocotools. AP and AR average over IoU 0.50 to 0.95 unless the name says
# otherwise; small, medium and large are areas below 32^2, below 96^2 and above, in pixels; the
# number after AR is how many detections of an image count.
METRIC_NAMES: Final = (
    *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
    *("AR 1", "AR 10", "AR 100", "AR small", "AR medium", "AR large"),
)
# What an annotation is nothing without.
NEEDED: Final = ("image_id", "category_id", "bbox")
# Where precision is sampled, share of the annotations.
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
    """Annotated images on disk.

    Attributes:
        images: Image id to file.
        categories: Category id to name.
        truth: The annotations, indexed.
    """

    images: Mapping[int, Path]
    categories: Mapping[int, str]
    truth: COCO


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
        """What is one number each, by the names of the attributes; the curves are left out."""
        return {
            "overall": self.overall,
            "ap_by_class": self.ap_by_class,
            "ap50_by_class": self.ap50_by_class,
        }

    def to_json(self) -> str:
        """`numbers` as a JSON object."""
        return json.dumps(self.numbers(), indent=2)


def read_coco_set(annotations: Path, folder: Path) -> CocoSet:
    """Read a COCO json, and find its images in a folder.

    Raises:
        ModelExportError: The file is not a COCO one or contradicts itself, or an image is missing.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        images = _unique((entry["id"], folder / entry["file_name"]) for entry in content["images"])
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        _check_names(categories)
        boxes = [_completed(entry, i) for i, entry in enumerate(content["annotations"], start=1)]
    except OSError as error:
        raise ModelExportError(f"cannot read {annotations}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelExportError(f"{annotations} is no COCO annotation file: {error!r}") from error
    if not images:
        raise ModelExportError(f"{annotations} lists no images")
    missing = [path for path in images.values() if not path.is_file()]
    if missing:
        raise ModelExportError(f"{len(missing)} images are missing, the first {missing[0]}")
    return CocoSet(images, categories, _indexed(images, categories, boxes))


def make_coco_set(
    images: Mapping[int, Path], categories: Mapping[int, str], boxes: Iterable[CocoBox]
) -> CocoSet:
    """A set from its parts, none of them a crowd; areas are those of the boxes.

    Args:
        images: Image id to file.
        categories: Category id to name.
        boxes: The annotations.
    """
    entries = [_completed(dict(box), i) for i, box in enumerate(boxes, start=1)]
    return CocoSet(images, categories, _indexed(images, categories, entries))


def measure(coco: CocoSet, results: Sequence[CocoResult]) -> Metrics:
    """Compare detections with the annotations."""
    boxes = [_completed(dict(result), i) for i, result in enumerate(results, start=1)]
    found = _indexed(coco.images, coco.categories, boxes)
    # pycocotools talks on stdout, which is for results.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco.truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    known = [None if value < 0 else float(value) for value in evaluation.stats]
    # (IoU, recall, class, area, detections): every area, up to 100 detections
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


def _unique(images: Iterable[tuple[int, Path]]) -> dict[int, Path]:
    """The images by their ids.

    Raises:
        ValueError: Two have the same.
    """
    by_id = dict[int, Path]()
    for image, path in images:
        if by_id.setdefault(image, path) is not path:
            raise ValueError(f"two images have the id {image}")
    return by_id


def _check_names(categories: Mapping[int, str]) -> None:
    """Refuse two categories of one name, by which the classes of a model are matched.

    Raises:
        ValueError: There are such.
    """
    ids = dict[str, int]()
    for category, name in categories.items():
        if ids.setdefault(name, category) != category:
            raise ValueError(f"categories {ids[name]} and {category} are both called {name}")


def _completed(entry: dict[str, Any], number: int) -> dict[str, Any]:
    """An annotation with what pycocotools needs and many files lack.

    Ids are given anew, from 1: pycocotools takes a match with id 0 for none.

    Raises:
        ValueError: It has no box, or does not say of what or where.
    """
    for name in NEEDED:
        if entry.get(name) is None:
            raise ValueError(f"annotation {number} has no {name}")
    x, y, width, height = map(float, entry["bbox"])
    given = {name: value for name, value in entry.items() if value is not None}
    completed = {"iscrowd": 0, "area": width * height} | given
    return completed | {"id": number, "bbox": [x, y, width, height]}


def _indexed(
    images: Mapping[int, Path], categories: Mapping[int, str], boxes: list[dict[str, Any]]
) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": category} for category in categories],
        "annotations": boxes,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _mean_known(precision: NDArray[np.float64]) -> float | None:
    """The mean, less the -1 that stands for nothing to measure."""
    known = precision[precision >= 0]
    return float(known.mean()) if known.size else None
