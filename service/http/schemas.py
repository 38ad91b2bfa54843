"""What goes over the wire: options, answers, problems."""

import dataclasses
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Final

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import to_json

from service.core.contract import MAX_SIGMA, MIN_SIGMA, ModelContract, NmsMethod, ScoreBy
from service.core.decode import Detections
from service.core.suppress import DetectionOptions
from service.errors import InvalidOptionError, ServiceError
from service.pipeline.stages import DetectedImage, StageSeconds

STAGES: Final = tuple(field.name for field in dataclasses.fields(StageSeconds))


def _split_names(value: object) -> object:
    """`a,b` and repeated parameters both make a list of strings; none of them means all."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int) for item in items):
        return value
    return [part.strip() for item in items for part in str(item).split(",") if part.strip()] or None


class DetectQuery(BaseModel):
    """The options of `POST /detect`; an absent one takes the server's default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    confidence: float | None = Field(None, ge=0, le=1, description="Least score to report")
    score_by: ScoreBy | None = Field(
        None, description="Score by `objectness`, or `joint` with the class probability"
    )
    nms: NmsMethod | None = Field(None, description="How overlapping boxes are pruned")
    iou: float | None = Field(
        None, ge=0, le=1, description="Overlap above which `soft-mean`, `soft-linear`, `hard` act"
    )
    sigma: float | None = Field(
        None, ge=MIN_SIGMA, le=MAX_SIGMA, description="Width of `soft-gaussian`"
    )
    class_agnostic: bool | None = Field(None, description="Boxes of different classes compete")
    max_detections: int | None = Field(None, ge=1, description="Most boxes of an image")
    classes: Annotated[list[str] | None, BeforeValidator(_split_names)] = Field(
        None, description="Only these classes: names or ids, comma-separated or repeated"
    )
    timeout_ms: int | None = Field(None, ge=1, description="Deadline of the request in ms")

    def resolve(self, defaults: DetectionOptions, class_names: tuple[str, ...]) -> DetectionOptions:
        """Lay these options over the server's defaults.

        Raises:
            InvalidOptionError: A class is unknown, or `max_detections` exceeds the server's.
        """
        if not self.model_fields_set:
            return defaults
        asked = self.model_dump(exclude_none=True, exclude={"classes", "timeout_ms"})
        if self.max_detections is not None and self.max_detections > defaults.max_detections:
            raise InvalidOptionError(
                f"max_detections is {self.max_detections}, and this server allows "
                f"{defaults.max_detections}"
            )
        if self.classes is not None:
            asked["class_ids"] = _class_ids(set(self.classes), class_names)
        return dataclasses.replace(defaults, **asked)


class DetectJson(DetectQuery):
    """The JSON form of a request: images, and options beside them."""

    images: list[str] = Field(description="Images in base64, or as base64 `data:` URIs")


class Box(BaseModel):
    """Corners in pixels of the upright image, clipped to it."""

    x1: float
    y1: float
    x2: float
    y2: float


class Detection(BaseModel):
    """One object."""

    box: Box
    score: float = Field(description="Confidence after suppression")
    objectness: float = Field(description="Probability that there is any object")
    class_id: int
    class_name: str


class ImageError(BaseModel):
    """Why one image of several could not be used."""

    status: int
    title: str
    detail: str


class ImageResult(BaseModel):
    """What was found in one image; null sizes where it could not be read."""

    filename: str | None
    width: int | None
    height: int | None
    detections: list[Detection]
    error: ImageError | None


class ModelRef(BaseModel):
    """The model that answered, and the execution provider that it really runs on."""

    name: str
    version: str
    provider: str


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


class Limits(BaseModel):
    """What this server accepts."""

    max_body_bytes: int
    max_images_per_request: int
    max_image_pixels: int
    max_queue_images: int
    max_detections: int
    request_timeout_ms: int


class ModelInfo(BaseModel):
    """The answer of `GET /model`."""

    contract: ModelContract
    provider: str
    device: str = Field(description="What was asked for")
    limits: Limits
    defaults: dict[str, str | bool | int | float] = Field(
        description="Options of a request that has none"
    )


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str

    @classmethod
    def of(cls, error: ServiceError, request_id: str) -> "Problem":
        """Describe an error of one request."""
        # Nothing here can be of another type, and to look takes longer than all the rest.
        return cls.model_construct(
            type=f"urn:problem-type:yolox-serve:{error.slug}",
            title=error.title,
            status=error.status,
            detail=error.detail,
            request_id=request_id,
        )


class Health(BaseModel):
    """The answer of a healthy `/health` endpoint."""

    status: str


def answer_json(
    model: ModelRef,
    images: Iterable[tuple[str | None, DetectedImage | ServiceError]],
    class_names: tuple[str, ...],
    timing: dict[str, float],
) -> bytes:
    """The JSON of a `DetectResponse`, which is its documentation: to make its objects takes longer.

    Args:
        model: What answered.
        images: The client's name for each image, and what became of it.
        class_names: A name for each class id.
        timing: As `timing_ms` gives it.
    """
    results = [_result(filename, outcome, class_names) for filename, outcome in images]
    answer = {"model": model, "results": results, "timing_ms": timing}
    return to_json(answer, inf_nan_mode="null")


def _result(
    filename: str | None, outcome: DetectedImage | ServiceError, class_names: tuple[str, ...]
) -> dict[str, object]:
    """The fields of an `ImageResult`."""
    if isinstance(outcome, ServiceError):
        error = ImageError(status=outcome.status, title=outcome.title, detail=outcome.detail)
        absent = {"width": None, "height": None}
        return {"filename": filename, **absent, "detections": [], "error": error}
    return {
        "filename": filename,
        "width": outcome.width,
        "height": outcome.height,
        "detections": _detections(outcome.detections, class_names),
        "error": None,
    }


def _detections(found: Detections, class_names: tuple[str, ...]) -> list[dict[str, object]]:
    """The fields of each `Detection`."""
    rows = zip(
        found.boxes_xyxy.astype(np.float64).round(2).tolist(),
        found.scores.tolist(),
        found.objectness.tolist(),
        found.class_ids.tolist(),
        strict=True,
    )
    return [
        {
            "box": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
            "score": round(score, 6),
            "objectness": round(objectness, 6),
            "class_id": class_id,
            "class_name": class_names[class_id],
        }
        for (x1, y1, x2, y2), score, objectness, class_id in rows
    ]


def timing_ms(seconds: list[StageSeconds], total_s: float) -> dict[str, float]:
    """The fields of a `TimingMs`: the slowest image's time of each stage, in ms."""
    slowest = {name: max([getattr(item, name) for item in seconds]) for name in STAGES}
    return {name: round(value * 1000, 3) for name, value in (slowest | {"total": total_s}).items()}


def _class_ids(names: set[str], class_names: tuple[str, ...]) -> frozenset[int]:
    known = _ids_by_name(class_names)
    unknown = sorted(names - known.keys())
    if unknown:
        raise InvalidOptionError(
            f"this model has no class {unknown[0]!r}; GET /model lists its classes"
        )
    return frozenset(known[name] for name in names)


@lru_cache(maxsize=4)
def _ids_by_name(class_names: tuple[str, ...]) -> dict[str, int]:
    """Names, and ids in digits; a name that looks like another's id is a name."""
    ids = range(len(class_names))
    return {str(i): i for i in ids} | {class_names[i]: i for i in reversed(ids)}
