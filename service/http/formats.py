"""Answers as other tools read them: COCO, YOLO, and boxes in other forms than corners."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from service.errors import ServiceError
from service.pipeline.stages import DetectedImage
from yolox_client.coco import category_ids

AnswerFormat = Literal["json", "coco", "yolo"]
BoxForm = Literal["xyxy", "xywh", "cxcywh"]

# The type of an answer in each format.
MEDIA_TYPES: Final[dict[AnswerFormat, str]] = {
    "json": "application/json",
    "coco": "application/json",
    "yolo": "text/plain",
}
KEYS: Final[dict[BoxForm, tuple[str, ...]]] = {
    "xyxy": ("x1", "y1", "x2", "y2"),
    "xywh": ("x", "y", "width", "height"),
    "cxcywh": ("cx", "cy", "width", "height"),
}
PIXEL_DIGITS: Final = 2
FRACTION_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of an answer.

    Attributes:
        format: The format; COCO and YOLO prescribe how boxes are written.
        boxes: The form of boxes in `json`.
        normalized: Whether boxes in `json` are fractions of the image's sides, not pixels.
    """

    format: AnswerFormat = "json"
    boxes: BoxForm = "xyxy"
    normalized: bool = False


PLAIN: Final = Layout()
YOLO_BOXES: Final = Layout("yolo", "cxcywh", normalized=True)
COCO_BOXES: Final = Layout("coco", "xywh")


class CocoImage(BaseModel):
    """An image; its id is its position in the request."""

    id: int
    file_name: str
    width: int
    height: int


class CocoAnnotation(BaseModel):
    """One object, in pixels of the upright image."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float] = Field(
        description="x and y of the top left corner, width, height", min_length=4, max_length=4
    )
    area: float
    iscrowd: int
    score: float


class CocoCategory(BaseModel):
    """One class of the model; ids are COCO's own if all its names are."""

    id: int
    name: str


class CocoError(BaseModel):
    """Why one image of several could not be used."""

    image_id: int
    status: int
    title: str
    detail: str


class CocoResponse(BaseModel):
    """A COCO dataset of the detections; `annotations` are COCO results as well."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
    errors: list[CocoError]


def laid_out(found: DetectedImage, layout: Layout) -> NDArray[np.float64]:
    """The boxes of an image in the form that is asked for: (N, 4), rounded."""
    boxes = in_form(found, layout)
    return np.round(boxes, FRACTION_DIGITS if layout.normalized else PIXEL_DIGITS)


def in_form(found: DetectedImage, layout: Layout) -> NDArray[np.float64]:
    """The boxes of an image in the form that is asked for: (N, 4), with all their digits."""
    boxes: NDArray[np.float64] = found.detections.boxes_xyxy.astype(np.float64)
    if layout.boxes != "xyxy":
        sizes = boxes[:, 2:] - boxes[:, :2]
        anchors = boxes[:, :2] + (sizes / 2 if layout.boxes == "cxcywh" else 0)
        boxes = np.hstack([anchors, sizes])
    if layout.normalized:
        boxes = boxes / np.tile([found.width, found.height], 2)
    return boxes


def named_boxes(found: DetectedImage, layout: Layout) -> list[dict[str, float]]:
    """The boxes of an image as JSON has them, each number under its name."""
    keys = KEYS[layout.boxes]
    return [dict(zip(keys, box, strict=True)) for box in laid_out(found, layout).tolist()]


def as_coco(
    filenames: Sequence[str | None],
    outcomes: Sequence[DetectedImage | ServiceError],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """The fields of a `CocoResponse`."""
    images, errors, annotations = [], [], []
    ids = _category_ids(tuple(class_names))
    for at, (filename, outcome) in enumerate(zip(filenames, outcomes, strict=True)):
        if isinstance(outcome, ServiceError):
            error = {"status": outcome.status, "title": outcome.title, "detail": outcome.detail}
            errors.append({"image_id": at} | error)
        else:
            size = {"width": outcome.width, "height": outcome.height}
            images.append({"id": at, "file_name": filename or ""} | size)
            annotations += [{"image_id": at} | one for one in _annotations(outcome, ids)]
    # COCO's evaluation takes an annotation with id 0 for none.
    numbered = [{"id": number} | one for number, one in enumerate(annotations, 1)]
    named = zip(ids, class_names, strict=True)
    categories = [{"id": number, "name": name} for number, name in named]
    return {"images": images, "annotations": numbered, "categories": categories, "errors": errors}


@lru_cache(maxsize=4)
def _category_ids(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """The category of each class: COCO's own, from 1 to 90, if all names are COCO's."""
    own = category_ids(class_names)
    return tuple(range(len(class_names)) if own is None else (own[name] for name in class_names))


def _annotations(found: DetectedImage, ids: Sequence[int]) -> list[dict[str, Any]]:
    detections = found.detections
    rows = zip(
        laid_out(found, COCO_BOXES).tolist(),
        detections.class_ids.tolist(),
        detections.scores.tolist(),
        strict=True,
    )
    return [
        {
            "category_id": ids[class_id],
            "bbox": box,
            "area": round(box[2] * box[3], PIXEL_DIGITS),
            "iscrowd": 0,
            "score": round(score, FRACTION_DIGITS),
        }
        for box, class_id, score in rows
    ]


def as_yolo(
    filenames: Sequence[str | None], outcomes: Sequence[DetectedImage | ServiceError]
) -> str:
    """YOLO labels: a line for each object, with class id, box as fractions, and score.

    Where there are several images, a comment before each one's labels names it, or says why it was
    not usable.
    """
    blocks = []
    for at, (filename, outcome) in enumerate(zip(filenames, outcomes, strict=True)):
        failed = isinstance(outcome, ServiceError)
        why = f": {outcome.status} {outcome.detail}" if isinstance(outcome, ServiceError) else ""
        if len(outcomes) > 1 or failed:
            blocks.append(_one_line(f"# {at} {filename or ''}{why}"))
        if isinstance(outcome, DetectedImage):
            blocks += _labels(outcome)
    return "".join(f"{line}\n" for line in blocks)


def _labels(found: DetectedImage) -> list[str]:
    rows = zip(
        found.detections.class_ids.tolist(),
        laid_out(found, YOLO_BOXES).tolist(),
        found.detections.scores.tolist(),
        strict=True,
    )
    return [
        " ".join([str(class_id), *(f"{value:.6f}" for value in (*box, score))])
        for class_id, box, score in rows
    ]


def _one_line(text: str) -> str:
    """A text without anything that ends a line: a filename may hold any character."""
    return " ".join(text.split())
