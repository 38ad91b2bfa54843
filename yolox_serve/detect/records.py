"""The result for one image or frame, as a line of JSON and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from yolox_client import Detection, ImageResult
from yolox_client.errors import ProblemError, YoloxClientError
from yolox_client.results import ModelRef, image_result

# The source and the frame, which no other record has.
Key: TypeAlias = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class Record:
    """A result and where it comes from.

    Attributes:
        source: Name of the image or video.
        result: The detections, or the error.
        frame: Number of the frame in its video, from 0; None for an image.
        time_s: Time of the frame in its video, in seconds.
    """

    source: str
    result: ImageResult
    frame: int | None = None
    time_s: float | None = None

    @property
    def picture_name(self) -> str:
        """A name of the image; a frame has one that `--save-images` gives it."""
        return self.source if self.frame is None else frame_name(self.source, self.frame)

    @property
    def key(self) -> Key:
        """The source and the frame, which no other record has."""
        return self.source, self.frame


def frame_name(video: str, frame: int) -> str:
    """The name of a frame as an image: `clip.mp4` to `clip_000012.jpg`."""
    path = PurePosixPath(video)
    return str(path.with_name(f"{path.stem or 'video'}_{frame:06d}.jpg"))


def as_fields(record: Record) -> dict[str, Any]:
    """The fields of a record, as an element of `results` in the server's answers has them."""
    result = record.result
    video = {} if record.frame is None else {"frame": record.frame, "time_s": record.time_s}
    return {
        "filename": record.source,
        **video,
        "width": result.width or None,
        "height": result.height or None,
        "detections": [_detection(found) for found in result.detections],
        "error": None if result.error is None else _error(result.error),
    }


def as_line(record: Record) -> str:
    """A record as a line of JSON."""
    return json.dumps(as_fields(record), ensure_ascii=False) + "\n"


def as_kept_line(record: Record) -> str:
    """A record as a line of JSON from which it can be had again, with the model."""
    model = record.result.model
    kept = as_fields(record) | {"model": None if model is None else asdict(model)}
    return json.dumps(kept, ensure_ascii=False) + "\n"


def from_fields(fields: Mapping[str, Any]) -> Record:
    """The record of the fields of a kept line.

    Raises:
        LookupError, TypeError, ValueError: They are not those of a record.
    """
    model = fields.get("model")
    result = image_result(fields, None if model is None else ModelRef(**model), {})
    return Record(str(fields["filename"]), result, fields.get("frame"), fields.get("time_s"))


def reason(error: YoloxClientError) -> str:
    """Why an image has no result, in words; the number of an HTTP status tells nothing here."""
    return error.detail if isinstance(error, ProblemError) else str(error)


def _detection(found: Detection) -> dict[str, Any]:
    track = {} if found.track_id is None else {"track_id": found.track_id}
    return {
        "box": found.box._asdict(),
        "score": found.score,
        "objectness": found.objectness,
        "class_score": found.class_score,
        "class_id": found.class_id,
        "class_name": found.class_name,
    } | track


def _error(error: YoloxClientError) -> dict[str, Any]:
    if isinstance(error, ProblemError):
        return {"status": error.status, "title": error.title, "detail": error.detail}
    return {"status": 0, "title": "Unreadable file", "detail": str(error)}
