"""The reader of Pascal VOC folders."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from model_export.data.annotations import Annotations, NamedBoxes, known_size, number_classes
from model_export.errors import ModelExportError


def read_voc(
    root: Path, split: str = "train", *, class_names: Sequence[str] | None = None
) -> Annotations:
    """Read one split of a Pascal VOC folder.

    Without `class_names` the classes are those of the split, sorted; other splits must then be read
    with the same names. Objects marked difficult are targets. Corners are taken as written: VOC
    2007 counts pixels from 1, labelling tools do not, and the file does not say which.

    Args:
        root: The folder that has ImageSets, Annotations and JPEGImages in it.
        split: A list in ImageSets/Main, without its suffix.
        class_names: Class id to name.

    Raises:
        ModelExportError: A file is missing or damaged, or has a class that is not in `class_names`.
    """
    folder = root / "JPEGImages"
    files = {path.stem: path for path in sorted(folder.glob("*"))}
    images = [
        _image(root / "Annotations" / f"{stem}.xml", files.get(stem, folder / stem), number)
        for number, stem in enumerate(_stems(root, split), start=1)
    ]
    names = class_names or sorted({name for image in images for name in image.names})
    return Annotations(tuple(names), number_classes(root, images, names))


def _stems(root: Path, split: str) -> list[str]:
    """The names of a split's images, without suffixes."""
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelExportError(f"{root} is no VOC folder with a split {split}: {error}") from error
    stems = [line.strip() for line in lines if line.strip()]
    # A list for one class has a second column of -1, 0 or 1. A file may also be named `photo 1`,
    # so the column counts only if every line has it.
    marks = [re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", stem) for stem in stems]
    if all(marks):
        return [mark[1] for mark in marks if mark]
    return stems


def _image(path: Path, image: Path, number: int) -> NamedBoxes:
    try:
        root = _parse(path.read_bytes())
        size = known_size(root.findtext("size/height"), root.findtext("size/width"))
        objects = root.findall("object")
        names = [_text(entry, "name") for entry in objects]
        corners = [_corners(entry) for entry in objects]
    except (OSError, ValueError, ET.ParseError) as error:
        raise ModelExportError(f"{path} is no VOC annotation: {error}") from error
    return NamedBoxes(image, number, size, corners, names)


def _parse(content: bytes) -> ET.Element:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("it has a DTD")
    # Without a DTD no entity can expand without bound, and expat fetches nothing.
    return ET.fromstring(content)  # noqa: S314


def _corners(entry: ET.Element) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (
        float(_text(entry, f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")
    )
    return x1, y1, x2, y2


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if not text or not text.strip():
        raise ValueError(f"an object has no {path}")
    return text.strip()
