"""The detections of an image, and their way into other tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from yolox_client.coco import coco_dataset
from yolox_client.errors import ProblemError, YoloxClientError, needing, problem_of
from yolox_client.label_studio import prediction
from yolox_client.yolo import yolo_lines

if TYPE_CHECKING:
    import supervision
    from PIL.Image import Image as PillowImage

    from yolox_client.images import ImageInput


class Box(NamedTuple):
    """Corners in pixels of the upright image, clipped to it."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object.

    Attributes:
        box: Its box.
        score: Its confidence, after suppression.
        objectness: Probability that there is any object.
        class_score: Probability of the class, if there is an object.
        class_id: Position of the class in the model's list.
        class_name: Name of the class.
        track_id: The object's number through a video, if it was tracked.
    """

    box: Box
    score: float
    objectness: float
    class_score: float
    class_id: int
    class_name: str
    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model that answered, and the execution provider that it runs on."""

    name: str
    version: str
    provider: str


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The detections of one image, or the reason why it could not be used.

    Attributes:
        filename: Name of the image, if it had one.
        width: Width of the upright image in pixels; 0 if it could not be used.
        height: Height of the upright image in pixels; 0 if it could not be used.
        detections: The objects, best first.
        error: Why the image could not be used, or None.
        model: The model that answered; None if none did.
        timing_ms: Milliseconds by stage on the server, of the request that the image was in.
    """

    filename: str | None
    width: int
    height: int
    detections: tuple[Detection, ...] = ()
    error: YoloxClientError | None = None
    model: ModelRef | None = None
    timing_ms: Mapping[str, float] = field(default_factory=dict)

    def raise_for_error(self) -> "ImageResult":
        """This result.

        Raises:
            YoloxClientError: The image could not be used.
        """
        if self.error is not None:
            raise self.error
        return self

    def to_coco(
        self, class_names: Sequence[str] | None = None, *, image_id: int = 1
    ) -> dict[str, Any]:
        """A COCO dataset of this image; its `annotations` are what `COCO.loadRes` takes.

        Category ids are COCO's own, 1 to 90, if all class names are COCO's; else class ids from 0.

        Args:
            class_names: All names of the model, for `categories`; by default those that were found.
            image_id: The image's id; that of several images is their position.
        """
        return coco_dataset([self.raise_for_error()], class_names, first_id=image_id)

    def to_yolo(self, *, scores: bool = True) -> str:
        """YOLO labels: a line `class cx cy width height score` for each object, as fractions.

        Args:
            scores: Whether a line ends with the score; training data has none.
        """
        return yolo_lines(self.raise_for_error(), scores=scores)

    def to_label_studio(
        self, *, from_name: str = "label", to_name: str = "image"
    ) -> dict[str, Any]:
        """A prediction of Label Studio.

        Args:
            from_name: Name of the `RectangleLabels` tag in the labelling interface.
            to_name: Name of its `Image` tag.
        """
        return prediction(self.raise_for_error(), from_name, to_name)

    def to_supervision(self) -> "supervision.Detections":
        """The detections as `supervision` has them; needs that package.

        Raises:
            ModuleNotFoundError: It is not installed, or NumPy or Pillow is not.
        """
        with needing("the extra track: pip install 'yolox-serve[track]'"):
            from yolox_client.convert import supervision_detections  # noqa: PLC0415 - imports NumPy

            return supervision_detections(self.raise_for_error())

    def draw(self, image: "ImageInput", *, channels: str | None = None) -> "PillowImage":
        """The upright image with the boxes and labels, as the server draws them; needs Pillow.

        Args:
            image: The image that these detections are of, in any form that `detect` takes.
            channels: `RGB` or `BGR`, the order of the colours in an array.

        Raises:
            ModuleNotFoundError: Pillow is not installed, or NumPy is not.
        """
        with needing("NumPy and Pillow: pip install numpy pillow"):
            from yolox_client.convert import drawn  # noqa: PLC0415 - imports Pillow

            return drawn(self.raise_for_error(), image, channels)


def image_result(
    item: Mapping[str, Any], model: ModelRef | None, timing_ms: Mapping[str, float]
) -> ImageResult:
    """An element of `results` in the answer of `POST /detect`.

    Raises:
        LookupError, TypeError, ValueError: It is not one.
    """
    error = item["error"]
    return ImageResult(
        filename=item["filename"],
        width=int(item["width"] or 0),
        height=int(item["height"] or 0),
        detections=tuple(_detection(found) for found in item["detections"]),
        error=None if error is None else problem_of(error, int(error["status"])),
        model=model,
        timing_ms=timing_ms,
    )


def is_temporary(result: ImageResult) -> bool:
    """Whether an image was refused for the moment only, and may be sent again."""
    return isinstance(result.error, ProblemError) and result.error.status == 503


def _detection(found: Mapping[str, Any]) -> Detection:
    box = found["box"]
    return Detection(
        box=Box(float(box["x1"]), float(box["y1"]), float(box["x2"]), float(box["y2"])),
        score=float(found["score"]),
        objectness=float(found["objectness"]),
        class_score=float(found["class_score"]),
        class_id=int(found["class_id"]),
        class_name=str(found["class_name"]),
        track_id=found.get("track_id"),
    )
