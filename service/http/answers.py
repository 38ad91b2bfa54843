"""The answers of `POST /detect`: JSON with what was found, or a picture of it."""

from collections.abc import Iterable, Sequence

import numpy as np
from fastapi import Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from service.core.decode import Detections
from service.errors import ServiceError
from service.http.access.note import Note
from service.http.formats import MEDIA_TYPES, PLAIN, Layout, as_coco, as_yolo, named_boxes
from service.models.served import ModelRef
from service.observe.model_metrics import STAGES
from service.pipeline.stages import DetectedImage, ImageSource, StageSeconds


class Box(BaseModel):
    """Corners, clipped to the upright image; in its pixels, unless `normalized` was asked for."""

    x1: float
    y1: float
    x2: float
    y2: float


class BoxXywh(BaseModel):
    """The top left corner and the size, with `boxes=xywh`."""

    x: float
    y: float
    width: float
    height: float


class BoxCxcywh(BaseModel):
    """The centre and the size, with `boxes=cxcywh`."""

    cx: float
    cy: float
    width: float
    height: float


class Detection(BaseModel):
    """One object."""

    box: Box | BoxXywh | BoxCxcywh
    score: float = Field(
        description="The detection's confidence, after suppression; the option `confidence` is its "
        "minimum"
    )
    objectness: float = Field(description="Probability that there is any object")
    class_score: float = Field(
        description="Probability of the class if there is an object. Before suppression, `score` "
        "is `objectness`, or with `score_by=joint` its product with this"
    )
    class_id: int
    class_name: str


class ImageError(BaseModel):
    """Why one image of several could not be used."""

    status: int
    title: str
    detail: str


class ImageResult(BaseModel):
    """The result for one image; its size is null if the image could not be read."""

    filename: str | None
    width: int | None
    height: int | None
    detections: list[Detection]
    error: ImageError | None


class TimingMs(BaseModel):
    """Milliseconds by stage; of several images, each stage's slowest."""

    decode: float
    queue: float
    inference: float
    postprocess: float
    total: float


class DetectResponse(BaseModel):
    """The answer of `POST /detect`, results in the order of the images."""

    model: ModelRef
    results: list[ImageResult]
    timing_ms: TimingMs


def answer_found(
    model: ModelRef,
    class_names: tuple[str, ...],
    sources: Sequence[ImageSource],
    outcomes: Sequence[DetectedImage | ServiceError],
    total_s: float,
    layout: Layout = PLAIN,
    note: Note | None = None,
) -> Response:
    """The answer to a request: JSON, unless it asks for YOLO labels.

    Args:
        model: The model that answered.
        class_names: A name for each class id.
        sources: The images as they were sent.
        outcomes: The detections of each image, or the error that it met.
        total_s: Time since the request came, in seconds.
        layout: The form that is asked for.
        note: Where to note the number of boxes, if a log is to tell it.

    Raises:
        ServiceError: Not one image could be used.
    """
    found = [outcome for outcome in outcomes if isinstance(outcome, DetectedImage)]
    if note is not None:
        note["detections"] = sum([len(image.detections.scores) for image in found])
    if not found:
        raise _worst(outcomes)
    timing = _timing_ms([image.seconds for image in found], total_s)
    headers = _server_timing(timing)
    if len(found) < len(outcomes):
        headers |= _retry_after(outcomes)
    filenames = [source.filename for source in sources]
    if layout.format == "yolo":
        labels = as_yolo(filenames, outcomes)
        return Response(labels, headers=headers, media_type=MEDIA_TYPES["yolo"])
    if layout.format == "coco":
        content = to_json(as_coco(filenames, outcomes, class_names), inf_nan_mode="null")
    else:
        named = zip(filenames, outcomes, strict=True)
        content = _json(model, named, class_names, timing, layout)
    return Response(content, headers=headers, media_type=MEDIA_TYPES[layout.format])


def answer_drawn(image: DetectedImage, picture: bytes, media_type: str, total_s: float) -> Response:
    """The picture as the answer to a request.

    Args:
        image: The detections.
        picture: The bytes of a picture file that shows it.
        media_type: The picture's type.
        total_s: Time since the request came, in seconds.
    """
    headers = _server_timing(_timing_ms([image.seconds], total_s))
    return Response(picture, headers=headers, media_type=media_type)


def _worst(outcomes: Sequence[DetectedImage | ServiceError]) -> ServiceError:
    """The error of a request without a single usable image."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    worst = max(errors, key=lambda error: error.status)
    if len(errors) == 1:
        return worst
    return type(worst)(
        f"none of the {len(errors)} images could be used; one of them: {worst.detail}",
        retry_after_s=worst.retry_after_s,
    )


def _retry_after(outcomes: Sequence[DetectedImage | ServiceError]) -> dict[str, str]:
    """The header that says when images that were refused may be sent again, if there are any."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    waits_s = [error.retry_after_s for error in errors if error.retry_after_s is not None]
    return {"Retry-After": str(max(waits_s))} if waits_s else {}


def _timing_ms(seconds: list[StageSeconds], total_s: float) -> dict[str, float]:
    """The fields of a `TimingMs`: each stage's slowest image, in ms."""
    timing = {}
    for name in STAGES:
        timing[name] = round(1000 * max([getattr(item, name) for item in seconds]), 3)
    timing["total"] = round(1000 * total_s, 3)
    return timing


def _server_timing(timing_ms: dict[str, float]) -> dict[str, str]:
    """The stages as a header; the exchange adds the total of the whole request."""
    return {"Server-Timing": ", ".join(f"{name};dur={timing_ms[name]:.2f}" for name in STAGES)}


def _json(
    model: ModelRef,
    images: Iterable[tuple[str | None, DetectedImage | ServiceError]],
    class_names: tuple[str, ...],
    timing_ms: dict[str, float],
    layout: Layout,
) -> bytes:
    """The JSON of a `DetectResponse`; to make its objects, which document it, would take longer."""
    results = [_result(filename, outcome, class_names, layout) for filename, outcome in images]
    answer = {"model": model, "results": results, "timing_ms": timing_ms}
    return to_json(answer, inf_nan_mode="null")


def _result(
    filename: str | None,
    outcome: DetectedImage | ServiceError,
    class_names: tuple[str, ...],
    layout: Layout,
) -> dict[str, object]:
    """The fields of an `ImageResult`."""
    if isinstance(outcome, ServiceError):
        error = ImageError(status=outcome.status, title=outcome.title, detail=outcome.detail)
        absent = {"width": None, "height": None}
        return {"filename": filename, **absent, "detections": [], "error": error}
    detections = _detections(outcome.detections, class_names)
    if layout is not PLAIN:
        for detection, box in zip(detections, named_boxes(outcome, layout), strict=True):
            detection["box"] = box
    return {
        "filename": filename,
        "width": outcome.width,
        "height": outcome.height,
        "detections": detections,
        "error": None,
    }


def _detections(found: Detections, class_names: tuple[str, ...]) -> list[dict[str, object]]:
    """The fields of each `Detection`."""
    rows = zip(
        found.boxes_xyxy.astype(np.float64).round(2).tolist(),
        found.scores.tolist(),
        found.objectness.tolist(),
        found.class_scores.tolist(),
        found.class_ids.tolist(),
        strict=True,
    )
    return [
        {
            "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
            "score": round(score, 6),
            "objectness": round(objectness, 6),
            "class_score": round(class_score, 6),
            "class_id": class_id,
            "class_name": class_names[class_id],
        }
        for (x1, y1, x2, y2), score, objectness, class_score, class_id in rows
    ]
