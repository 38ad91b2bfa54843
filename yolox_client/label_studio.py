"""Results as the regions of Label Studio."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yolox_client.results import Detection, ImageResult


def prediction(result: "ImageResult", from_name: str, to_name: str) -> dict[str, Any]:
    """A prediction for one task.

    Args:
        result: The image; boxes become percentages of its sides.
        from_name: Name of the `RectangleLabels` tag in the labelling interface.
        to_name: Name of its `Image` tag.
    """
    scores = [found.score for found in result.detections]
    names = {"type": "rectanglelabels", "from_name": from_name, "to_name": to_name}
    size = {"original_width": result.width, "original_height": result.height}
    return {
        "model_version": "yolox-serve" if result.model is None else result.model.name,
        "score": sum(scores) / len(scores) if scores else 0.0,
        "result": [
            names | size | {"image_rotation": 0, "score": found.score} | _value(found, result)
            for found in result.detections
        ],
    }


def _value(found: "Detection", image: "ImageResult") -> dict[str, Any]:
    x1, y1, x2, y2 = found.box
    value = {
        "x": 100 * x1 / image.width,
        "y": 100 * y1 / image.height,
        "width": 100 * (x2 - x1) / image.width,
        "height": 100 * (y2 - y1) / image.height,
        "rotation": 0,
        "rectanglelabels": [found.class_name],
    }
    return {"value": value}
