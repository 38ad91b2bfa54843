"""Draw data sets and write them in COCO format."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import cv2
import numpy as np

from model_export.errors import ModelExportError
from model_export.samples.geometry import Picture

# Identifies files written by this module; other files are never overwritten.
DESCRIPTION: Final = "Drawn by `python -m model_export demo-data`"

# Part of the seed, so that these pictures differ from those of other subjects.
DENSE_STREAM: Final = 0xDE


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of picture to draw.

    Attributes:
        class_names: Class id to name.
        draw: Draws a picture, given its number; the same number gives the same picture.
    """

    class_names: tuple[str, ...]
    draw: Callable[[int], Picture]


class _Image(TypedDict):
    id: int
    file_name: str
    height: int
    width: int


class _Box(TypedDict):
    """`bbox` is x, y, width, height in image pixels; `area` is the area of that box."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int


def shapes(size: int, seed: int) -> Subject:
    """Circles, squares and triangles, on square pictures of `size` pixels a side."""
    # Imported here, so that shapes do not need the additional packages for barcodes.
    from model_export.drawing.shapes import CLASS_NAMES, draw_scene  # noqa: PLC0415

    return Subject(CLASS_NAMES, lambda number: draw_scene(seed, number, size, size))


def barcodes(seed: int) -> Subject:
    """Scenes like those that the barcode detector was trained on, but never the same ones."""
    from model_export.drawing.barcodes.scene import draw_scene  # noqa: PLC0415
    from model_export.drawing.barcodes.symbols import CLASS_NAMES  # noqa: PLC0415

    return Subject(CLASS_NAMES, lambda number: draw_scene(np.random.default_rng((seed, number))))


def dense_barcodes(seed: int) -> Subject:
    """Symbols that look like texture, and low strips: a set to measure barcode detectors on."""
    from model_export.drawing.barcodes.dense.pictures import draw_measured  # noqa: PLC0415
    from model_export.drawing.barcodes.symbols import CLASS_NAMES  # noqa: PLC0415

    def draw(number: int) -> Picture:
        # Half of the numbers, because a set has only the even or the odd ones.
        return draw_measured(np.random.default_rng((seed, DENSE_STREAM, number)), number // 2)

    return Subject(CLASS_NAMES, draw)


def write_demo_data(folder: Path, subject: Subject, *, train: int, val: int) -> tuple[Path, Path]:
    """Draw two sets of pictures; write train.json, val.json and PNG files in the folder `images`.

    Files of an earlier call are overwritten; no file is deleted.

    Args:
        folder: The folder to write to; created if missing.
        subject: The kind of picture to draw.
        train: Number of training pictures.
        val: Number of validation pictures; no picture is ever in both sets.

    Returns:
        The two json files.

    Raises:
        ModelExportError: The folder holds annotations of another data set, or cannot be written to.
    """
    paths = folder / "train.json", folder / "val.json"
    for path in paths:
        _refuse_others(path)
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        # Even numbers are for training, odd ones for validation.
        _write_split(paths[0], range(0, 2 * train, 2), subject)
        _write_split(paths[1], range(1, 2 * val, 2), subject)
    except OSError as error:
        raise ModelExportError(f"cannot write to {folder}: {error.strerror}") from error
    return paths


def _refuse_others(path: Path) -> None:
    """Raise ModelExportError if a file exists that `write_demo_data` did not write."""
    try:
        ours = not path.exists() or DESCRIPTION in path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise ModelExportError(f"{path} belongs to another data set; choose another folder")


def _write_split(path: Path, numbers: Iterable[int], subject: Subject) -> None:
    images: list[_Image] = []
    boxes: list[_Box] = []
    for image_id, number in enumerate(numbers, start=1):
        picture = subject.draw(number)
        height, width = picture.image.shape[:2]
        name = f"images/{path.stem}-{image_id:05}.png"
        _write_image(path.parent / name, picture)
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        boxes += _boxes(picture, image_id, len(boxes) + 1)
    categories = [
        {"id": number, "name": name} for number, name in enumerate(subject.class_names, 1)
    ]
    content = {
        "info": {"description": DESCRIPTION},
        "images": images,
        "annotations": boxes,
        "categories": categories,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_image(path: Path, picture: Picture) -> None:
    # On Windows, `imwrite` fails for paths that the code page cannot express.
    path.write_bytes(cv2.imencode(".png", picture.image)[1].tobytes())


def _boxes(picture: Picture, image_id: int, first_id: int) -> list[_Box]:
    rows = zip(picture.boxes_xyxy.tolist(), picture.class_ids.tolist(), strict=True)
    return [
        {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": class_id + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
        }
        for number, ((x1, y1, x2, y2), class_id) in enumerate(rows)
    ]
