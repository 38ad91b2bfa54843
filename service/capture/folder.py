"""The folder of the captured images: a picture and a record for each, and COCO of them all.

Several processes may write to one folder. Nothing in it tells who sent an image: no name of a file,
no address, no key, no metadata of a camera.
"""

import datetime as dt
import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from service.capture.choice import Reason
from service.errors import StartupError
from yolox_client.coco import category_ids

Keep = Literal["picture", "blurred", "boxes"]

IMAGES, RECORDS, COCO_FILE = "images", "records", "annotations.json"
JPEG_QUALITY: Final = 92
# What is left of the longer side before it is enlarged again: no face and no writing can be read.
BLURRED_SIDE: Final = 48
DAY_S: Final = 86_400
MB: Final = 2**20
# All records are read for it, which may take this part of a CPU.
COCO_SHARE: Final = 0.01
COCO_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class CapturedBox:
    """A box that the model found.

    Attributes:
        name: Its class.
        score: Its score.
        xywh: Left, top, width and height in pixels of the picture.
    """

    name: str
    score: float
    xywh: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Record:
    """An image that was captured.

    Attributes:
        width: Its width in pixels.
        height: Its height in pixels.
        model: Name and version of the model that answered.
        reason: Why it was chosen.
        class_names: All classes of the model.
        boxes: What it found.
    """

    width: int
    height: int
    model: str
    reason: Reason
    class_names: Sequence[str]
    boxes: Sequence[CapturedBox]


@dataclass(frozen=True, slots=True)
class FolderLimits:
    """How much a folder may hold.

    Attributes:
        max_mb: Size of all files together, in MiB.
        max_days: Age of a picture.
    """

    max_mb: int
    max_days: float


class CaptureFolder:
    """Writes captured images, and deletes the oldest. One thread calls it.

    Args:
        path: The folder; it is made, for its owner alone.
        keep: What is kept of a picture.
        limits: How much the folder may hold.

    Raises:
        StartupError: The folder cannot be written to.
    """

    def __init__(self, path: Path, keep: Keep, limits: FolderLimits) -> None:
        self._path = path
        self._keep = keep
        self._limits = limits
        self._next_coco = 0.0
        try:
            for each in (path, path / IMAGES, path / RECORDS):
                each.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = path / f".{secrets.token_hex(8)}"
            probe.touch(mode=0o600)
            probe.unlink()
        except OSError as error:
            raise StartupError(f"capture: {path} cannot be written to: {error}") from error

    def add(self, pixels: NDArray[np.uint8] | None, record: Record) -> None:
        """Keep an image.

        Args:
            pixels: (h, w, 3) uint8, BGR; None where `keep` is `boxes`.
            record: What is known of it.

        Raises:
            OSError: It cannot be written.
        """
        # In the order of time, and unique in all processes.
        name = f"{time.time_ns():016x}-{secrets.token_hex(4)}"
        written = asdict(record)
        written["date_captured"] = dt.datetime.now(dt.UTC).date().isoformat()
        written["file_name"] = f"{IMAGES}/{name}.jpg"
        if pixels is not None:
            shown = blurred(pixels) if self._keep == "blurred" else pixels
            _write(self._path / IMAGES / f"{name}.jpg", _as_jpeg(shown))
        # The picture comes first, so that no record lacks its own.
        _write(self._path / RECORDS / f"{name}.json", json.dumps(written).encode())
        if time.monotonic() >= self._next_coco:
            self.tidy()

    @property
    def keeps_pictures(self) -> bool:
        """Whether `add` needs the pixels."""
        return self._keep != "boxes"

    def tidy(self) -> None:
        """Delete what is too old or too much, and write COCO of the rest.

        Raises:
            OSError: It cannot be written.
        """
        began = time.monotonic()
        self._prune()
        _write(self._path / COCO_FILE, json.dumps(as_coco(self._records())).encode())
        took = time.monotonic() - began
        self._next_coco = time.monotonic() + max(COCO_PAUSE_S, took / COCO_SHARE)

    def _records(self) -> Iterator[dict[str, Any]]:
        """Every record, oldest first; those that another process deletes meanwhile are left out."""
        for path in sorted((self._path / RECORDS).glob("*.json")):
            with suppress(OSError, ValueError):
                yield json.loads(path.read_bytes())

    def _prune(self) -> None:
        oldest = time.time() - self._limits.max_days * DAY_S
        left = self._limits.max_mb * MB
        for record in sorted((self._path / RECORDS).glob("*.json"), reverse=True):
            picture = self._path / IMAGES / f"{record.stem}.jpg"
            with suppress(FileNotFoundError):
                size, since = record.stat().st_size, record.stat().st_mtime
                with suppress(FileNotFoundError):
                    size += picture.stat().st_size
                left -= size
                if left < 0 or since < oldest:
                    picture.unlink(missing_ok=True)
                    record.unlink()


def as_coco(records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """A COCO dataset of captured images; each annotation has the model's `score`.

    Category ids are COCO's own where all classes are COCO's, else they count from 1.
    """
    kept = list(records)
    names = list(dict.fromkeys(name for record in kept for name in record["class_names"]))
    ids = category_ids(names) or {name: number for number, name in enumerate(names, 1)}
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for image_id, record in enumerate(kept, 1):
        told = ("file_name", "width", "height", "date_captured", "model", "reason")
        images.append({"id": image_id} | {name: record[name] for name in told})
        for box in record["boxes"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": ids[box["name"]],
                    "bbox": box["xywh"],
                    "area": box["xywh"][2] * box["xywh"][3],
                    "iscrowd": 0,
                    "score": box["score"],
                }
            )
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": ids[name], "name": name} for name in names],
    }


def blurred(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture of the same size that shows where things are, and nobody's face.

    Args:
        pixels: (h, w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    scale = BLURRED_SIDE / max(height, width, BLURRED_SIDE)
    small = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def _as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner alone."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
