"""The options of a detection, as keyword arguments and as query parameters."""

from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

ScoreBy = Literal["objectness", "joint"]
Preset = Literal["article", "yolox"]
NmsMethod = Literal["soft-mean", "soft-gaussian", "soft-linear", "hard", "none"]


class Options(TypedDict, total=False):
    """The options of `POST /detect`; an absent one takes the server's default.

    Attributes:
        preset: Thresholds and suppression of the article or of YOLOX's own tools, in place of the
            server's; other options still count.
        confidence: Minimum score to report, 0 to 1.
        score_by: Score by objectness alone, or times the class probability.
        nms: How overlapping boxes are pruned.
        iou: Overlap above which `soft-mean`, `soft-linear` and `hard` act, 0 to 1.
        sigma: Width of `soft-gaussian`.
        class_agnostic: Whether boxes of different classes compete.
        max_detections: Maximum number of boxes in an image.
        classes: Only these classes, by name or id.
        timeout_ms: Deadline of the request on the server, in milliseconds.
        model: Name of the model, where the server has several.
        version: Version of the model.
    """

    preset: Preset
    confidence: float
    score_by: ScoreBy
    nms: NmsMethod
    iou: float
    sigma: float
    class_agnostic: bool
    max_detections: int
    classes: Iterable[str | int]
    timeout_ms: int
    model: str
    version: str


def as_query(options: Mapping[str, object]) -> list[tuple[str, str]]:
    """Options as query parameters; None means the server's default."""
    return [
        (name, text)
        for name, value in options.items()
        if value is not None
        for text in _texts(value)
    ]


def _texts(value: object) -> list[str]:
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, str | int | float):
        return [str(value)]
    if isinstance(value, Iterable):
        return [str(item) for item in value]
    raise TypeError(f"{value!r} cannot be an option's value")
