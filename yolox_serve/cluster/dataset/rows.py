"""The result for one image as a row of Parquet, and back."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from yolox_client import Detection, ImageResult
from yolox_client.results import Box
from yolox_serve.cluster.dataset.listing import NAME

DETECTION: Final = pa.struct(
    [
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("score", pa.float64()),
        ("objectness", pa.float64()),
        ("class_score", pa.float64()),
        *((corner, pa.float64()) for corner in Box._fields),
    ]
)
SCHEMA: Final = pa.schema(
    [
        (NAME, pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("detections", pa.list_(DETECTION)),
        ("error", pa.string()),
    ]
)


def table_of(names: Sequence[str], results: Sequence[ImageResult]) -> pa.Table:
    """A row for each image.

    Args:
        names: The names of the images.
        results: Their results; an image that could not be used has `error` and no size.
    """
    return pa.Table.from_pylist([_row(*pair) for pair in zip(names, results, strict=True)], SCHEMA)


def result_of(row: Mapping[str, Any]) -> ImageResult | None:
    """The result in a row; None for an image that could not be used."""
    if row["error"] is not None:
        return None
    found = tuple(_detection(each) for each in row["detections"])
    return ImageResult(row[NAME], row["width"], row["height"], found)


def _row(name: str, result: ImageResult) -> dict[str, Any]:
    return {
        NAME: name,
        "width": result.width or None,
        "height": result.height or None,
        "detections": [_fields(found) for found in result.detections],
        "error": None if result.error is None else str(result.error),
    }


def _fields(found: Detection) -> dict[str, Any]:
    names = ("class_id", "class_name", "score", "objectness", "class_score")
    return {name: getattr(found, name) for name in names} | found.box._asdict()


def _detection(fields: Mapping[str, Any]) -> Detection:
    box = Box(*(fields[corner] for corner in Box._fields))
    names = ("score", "objectness", "class_score", "class_id", "class_name")
    return Detection(box, *(fields[name] for name in names))
