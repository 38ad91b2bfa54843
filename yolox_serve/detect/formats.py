"""Records in the formats of other tools."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, Protocol, TextIO
from urllib.parse import quote

from yolox_client import coco
from yolox_client.label_studio import prediction
from yolox_client.yolo import yolo_lines
from yolox_serve.detect.records import Record, as_fields, as_line

Format = Literal["json", "jsonl", "csv", "coco", "yolo", "labelstudio"]

CSV_COLUMNS: Final = (
    "filename frame time_s width height class_id class_name score objectness class_score "
    "x1 y1 x2 y2 track_id"
).split()


class Writer(Protocol):
    """Writes records as they come; nothing is complete before `end`."""

    def add(self, record: Record) -> None:
        """Write a record; images that could not be used are left out, except from JSON."""

    def end(self) -> None:
        """Write the rest."""


class JsonLines:
    """A line of JSON for each image."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def add(self, record: Record) -> None:
        """Write its line."""
        self._out.write(as_line(record))
        self._out.flush()

    def end(self) -> None:
        """Do nothing."""


class Json:
    """One object with `results`, as in the server's answers."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._separator = '{"results": [\n'

    def add(self, record: Record) -> None:
        """Write its element."""
        self._out.write(self._separator + as_line(record).rstrip("\n"))
        self._separator = ",\n"

    def end(self) -> None:
        """Close the object."""
        opening = self._separator if self._separator != ",\n" else ""
        self._out.write(f"{opening}\n]}}\n")


class Csv:
    """A row for each object."""

    def __init__(self, out: TextIO) -> None:
        self._rows = csv.writer(out, lineterminator="\n")
        self._rows.writerow(CSV_COLUMNS)

    def add(self, record: Record) -> None:
        """Write its rows; an image without objects has none."""
        fields = as_fields(record)
        for found in fields["detections"]:
            values = fields | found | found["box"]
            self._rows.writerow([values.get(name) for name in CSV_COLUMNS])

    def end(self) -> None:
        """Do nothing."""


class Coco:
    """A COCO dataset; its annotations are what `COCO.loadRes` takes.

    Args:
        out: Where to write.
        class_names: The names of the model's classes.
    """

    def __init__(self, out: TextIO, class_names: Sequence[str]) -> None:
        self._out = out
        self._names = class_names
        self._own_ids = coco.category_ids(class_names)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, record: Record) -> None:
        """Keep its entries."""
        if record.result.error is not None:
            return
        number = len(self._images) + 1
        named = coco.coco_image(record.result, number) | {"file_name": record.picture_name}
        self._images.append(named)
        for found in record.result.detections:
            annotation = coco.annotation(found, number, self._own_ids)
            self._annotations.append({"id": len(self._annotations) + 1} | annotation)

    def end(self) -> None:
        """Write the dataset."""
        dataset = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": coco.categories(self._names, self._own_ids),
        }
        json.dump(dataset, self._out, ensure_ascii=False)
        self._out.write("\n")


class Yolo:
    """A folder with a text file for each image, and `classes.txt`.

    Args:
        folder: The folder; it is made.
        class_names: The names of the model's classes.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in class_names), "utf-8")

    def add(self, record: Record) -> None:
        """Write its file; that of an image without objects is empty."""
        if record.result.error is None:
            path = inside(self._folder, record.picture_name).with_suffix(".txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yolo_lines(record.result), "utf-8")

    def end(self) -> None:
        """Do nothing."""


class LabelStudio:
    """Tasks of Label Studio with predictions, for its import.

    Images are addressed as its local file storage does; a labelling interface with a
    `RectangleLabels` named `label` for an `Image` named `image` shows the boxes.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._separator = "[\n"

    def add(self, record: Record) -> None:
        """Write its task."""
        if record.result.error is None:
            self._out.write(self._separator + json.dumps(_task(record), ensure_ascii=False))
            self._separator = ",\n"

    def end(self) -> None:
        """Close the list."""
        opening = self._separator if self._separator != ",\n" else ""
        self._out.write(f"{opening}\n]\n")


def inside(folder: Path, name: str) -> Path:
    """The place of a name in a folder, without leaving it."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", "\\")]
    return folder.joinpath(*parts)


def _task(record: Record) -> dict[str, Any]:
    predicted = prediction(record.result, "label", "image")
    address = f"/data/local-files/?d={quote(record.picture_name)}"
    return {"data": {"image": address}, "predictions": [predicted]}
