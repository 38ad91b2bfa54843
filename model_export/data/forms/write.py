"""Writers of every form, each laid out as its tools lay it out."""

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import yaml

from model_export.data.annotations import NamedBoxes
from model_export.data.forms.yolo import MAX_SHARE
from model_export.data.image_files import header_size, image_size, other_size
from model_export.data.sources import FormName
from model_export.errors import ModelExportError
from model_export.files import write_atomically

Splits = Mapping[str, Sequence[NamedBoxes]]
CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
# Decimals of the shares that YOLO's labels are in: enough for any float32 of a pixel.
SHARE_DECIMALS: Final = 10


def write_form(
    form: FormName, folder: Path, splits: Splits, class_names: Sequence[str]
) -> list[Path]:
    """Write a data set: copies of its images, and its annotations.

    Args:
        form: The form to write.
        folder: A folder that is empty or does not exist.
        splits: The images of each split; sizes that are not known are read from the files.
        class_names: Class id to name. Forms that do not number classes get a classes.txt too.

    Returns:
        What to give to `--data`.

    Raises:
        ModelExportError: The folder is not empty, an image is missing, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelExportError(f"{folder} is not empty; choose another --output")
    broken = [name for name in class_names if len(name.splitlines()) > 1]
    if broken and form in ("voc", "csv"):
        raise ModelExportError(
            f"the class {broken[0]!r} has a line break, which classes.txt cannot hold; correct its "
            "name in the data, or write --to coco or yolo"
        )
    placed = _copy_images(form, folder, splits)
    for split, images in placed.items():
        WRITERS[form](folder, split, images, class_names)
    if form == "yolo":
        places = {split: f"images/{split}" for split in placed}
        text = yaml.safe_dump({**places, "names": dict(enumerate(class_names))}, sort_keys=False)
        _write(folder / "data.yaml", text)
        return [folder / "data.yaml"]
    if form != "coco":
        _write(folder / "classes.txt", "".join(f"{name}\n" for name in class_names))
        return [folder]
    return [folder / f"{split}.json" for split in placed]


def _copy_images(form: FormName, folder: Path, splits: Splits) -> Splits:
    """The same boxes on copies of the images, whose names are unique in the whole data set."""
    taken: set[str] = set()
    return {
        split: [_copied(image, folder / _image_folder(form, split), taken) for image in images]
        for split, images in splits.items()
    }


def _image_folder(form: FormName, split: str) -> str:
    return {"voc": "JPEGImages", "csv": split}.get(form, f"images/{split}")


def _copied(image: NamedBoxes, folder: Path, taken: set[str]) -> NamedBoxes:
    # Readers of lists and tables take no blanks at the ends, and no line breaks.
    plain = "".join(each if each.isprintable() else "_" for each in image.path.stem).strip()
    plain = plain or "image"
    stem, number = plain, 2
    while stem.casefold() in taken:
        stem, number = f"{plain}-{number}", number + 1
    taken.add(stem.casefold())
    copy = folder / f"{stem}{image.path.suffix}"
    # Where the header has no size, decoding says why.
    size = header_size(image.path) or image_size(image.path)
    if image.size not in (None, size):
        raise other_size(image.path, size, image.size)
    for corners in image.corners:
        if not all(map(math.isfinite, corners)):
            raise ModelExportError(f"{image.path} has a box that is not four numbers: {corners}")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image.path, copy)
    return image._replace(path=copy, size=size)


def _write_coco(
    folder: Path, split: str, images: Sequence[NamedBoxes], class_names: Sequence[str]
) -> None:
    ids = {name: number for number, name in enumerate(class_names, start=1)}
    boxes = [
        (number, name, corners)
        for number, image in enumerate(images, start=1)
        for name, corners in zip(image.names, image.corners, strict=True)
    ]
    content = {
        "images": [
            {
                "id": number,
                "file_name": image.path.relative_to(folder).as_posix(),
                "height": _size(image)[0],
                "width": _size(image)[1],
            }
            for number, image in enumerate(images, start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {
                "id": at,
                "image_id": number,
                "category_id": ids[name],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for at, (number, name, (x1, y1, x2, y2)) in enumerate(boxes, start=1)
        ],
    }
    _write(folder / f"{split}.json", json.dumps(content))


def _write_yolo(
    folder: Path, split: str, images: Sequence[NamedBoxes], class_names: Sequence[str]
) -> None:
    ids = {name: number for number, name in enumerate(class_names)}
    for image in images:
        height, width = _size(image)
        lines = []
        for name, (x1, y1, x2, y2) in zip(image.names, image.corners, strict=True):
            shares = _shares(x1 / width, y1 / height, x2 / width, y2 / height)
            lines.append(
                " ".join([str(ids[name]), *(f"{each:.{SHARE_DECIMALS}f}" for each in shares)])
            )
        _write(folder / "labels" / split / f"{image.path.stem}.txt", _joined(lines))


def _shares(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
    """Centre, width and height of a box whose corners are shares of the image.

    Farther outside than a reader believes, it is cut off at the image's border.
    """
    shares = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
    if max(map(abs, shares)) <= MAX_SHARE:
        return shares
    return _shares(*(min(max(each, 0.0), 1.0) for each in (x1, y1, x2, y2)))


def _write_voc(
    folder: Path, split: str, images: Sequence[NamedBoxes], _class_names: Sequence[str]
) -> None:
    for image in images:
        tree = _voc_tree(image)
        ET.indent(tree)
        content = ET.tostring(tree, encoding="utf-8", xml_declaration=True)
        write_atomically(content, folder / "Annotations" / f"{image.path.stem}.xml")
    stems = [image.path.stem for image in images]
    _write(folder / "ImageSets" / "Main" / f"{split}.txt", _joined(stems))


def _voc_tree(image: NamedBoxes) -> ET.Element:
    root = ET.Element("annotation")
    _add(root, "folder", image.path.parent.name)
    _add(root, "filename", image.path.name)
    size = ET.SubElement(root, "size")
    for name, pixels in zip(("height", "width", "depth"), (*_size(image), 3), strict=True):
        _add(size, name, str(pixels))
    for name, corners in zip(image.names, image.corners, strict=True):
        entry = ET.SubElement(root, "object")
        _add(entry, "name", name)
        box = ET.SubElement(entry, "bndbox")
        for corner, value in zip(CORNERS, corners, strict=True):
            _add(box, corner, _number(value))
    return root


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, name).text = text


def _write_csv(
    folder: Path, split: str, images: Sequence[NamedBoxes], _class_names: Sequence[str]
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["filename", "width", "height", "class", *CORNERS])
    for image in images:
        start = (image.path.name, *reversed(_size(image)))
        boxes = zip(image.names, image.corners, strict=True)
        rows = [(*start, name, *map(_number, corners)) for name, corners in boxes]
        writer.writerows(rows or [(*start, *[""] * 5)])
    _write(folder / split / "_annotations.csv", file.getvalue())


def _size(image: NamedBoxes) -> tuple[int, int]:
    if image.size is None:
        raise ValueError("an image without a size")
    return image.size


def _number(value: float) -> str:
    """Without a point if the value is whole, for tools that take no others."""
    return str(int(value)) if value.is_integer() else repr(value)


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _write(path: Path, text: str) -> None:
    write_atomically(text.encode(), path)


Writer = Callable[[Path, str, Sequence[NamedBoxes], Sequence[str]], None]
WRITERS: Final[Mapping[FormName, Writer]] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "csv": _write_csv,
}
