"""Results as the labels of YOLO tools."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yolox_client.results import Detection, ImageResult


def yolo_lines(result: "ImageResult", *, scores: bool = True) -> str:
    """A line `class cx cy width height score` for each object of an image.

    Args:
        result: The image; boxes become fractions of its sides.
        scores: Whether a line ends with the score; training data has none.
    """
    return "".join(
        f"{_line(found, result.width, result.height, scores)}\n" for found in result.detections
    )


def _line(found: "Detection", width: int, height: int, scores: bool) -> str:
    x1, y1, x2, y2 = found.box
    box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    values = (*box, found.score) if scores else box
    return " ".join([str(found.class_id), *(f"{value:.6f}" for value in values)])
