"""Annotated images, as COCO json files and Pascal VOC folders describe them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from model_export.errors import ModelExportError


@dataclass(frozen=True, slots=True, eq=False)
class AnnotatedImage:
    """One image file, and what the annotations say is on it.

    Attributes:
        path: The image file.
        image_id: COCO's id; in a VOC folder, the place in the split, from 1.
        size: Height and width in pixels, where the annotations tell.
        boxes_xyxy: (K, 4) float32, image pixels.
        class_ids: (K,) int64.
    """

    path: Path
    image_id: int
    size: tuple[int, int] | None
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Annotations:
    """What a data set says, before any image was looked at.

    Attributes:
        class_names: Class id to name.
        images: In the order of the data set; boxes as written, whatever they are.
        crowd: How many annotations of crowds were left out.
    """

    class_names: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]
    crowd: int = 0


class _Labels(NamedTuple):
    """The boxes of one image with class names instead of ids."""

    path: Path
    image_id: int
    size: tuple[int, int] | None
    corners: Sequence[tuple[float, float, float, float]]
    names: Sequence[str]


def read_annotations(
    source: Path,
    images: Path | None = None,
    *,
    split: str = "train",
    class_names: Sequence[str] | None = None,
) -> Annotations:
    """Read a COCO json or a Pascal VOC folder, whichever it is.

    Args:
        source: A COCO json file, or a folder with ImageSets, Annotations and JPEGImages.
        images: Folder of a COCO json's images (default: that of the json).
        split: Which list of a VOC folder's ImageSets/Main.
        class_names: Names in the order of their ids (default: the data set's own).

    Raises:
        ModelExportError: It is neither, or it is damaged.
    """
    if source.is_dir():
        return read_voc(source, split, class_names=class_names)
    return read_coco(source, images or source.parent, class_names=class_names)


def read_coco(
    annotations: Path, folder: Path, *, class_names: Sequence[str] | None = None
) -> Annotations:
    """Read a COCO json, whose file names are relative to a folder.

    Classes are in the order of their category ids. Crowds are no targets, and are left out.

    Raises:
        ModelExportError: The file is no COCO one, contradicts itself, or has other classes.
    """
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        targets = [entry for entry in content["annotations"] if not entry.get("iscrowd")]
        labels = _coco_labels(folder, content["images"], categories, targets)
        names = class_names or [categories[category] for category in sorted(categories)]
    except OSError as error:
        raise ModelExportError(f"cannot read {annotations}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelExportError(f"{annotations} is no COCO annotation file: {error!r}") from error
    crowd = len(content["annotations"]) - len(targets)
    return Annotations(tuple(names), _numbered(annotations, labels, names), crowd)


def read_voc(
    root: Path, split: str = "train", *, class_names: Sequence[str] | None = None
) -> Annotations:
    """Read one split of a Pascal VOC folder.

    Without `class_names` the classes are those of the split, sorted; give other splits the same
    names. Objects marked difficult are targets. Corners are taken as written: VOC 2007 counts
    pixels from 1, labelling tools do not, and the file does not say which.

    Raises:
        ModelExportError: A file is missing or damaged, or has a class that is not in `class_names`.
    """
    folder = root / "JPEGImages"
    files = {path.stem: path for path in sorted(folder.glob("*"))}
    labels = [
        _voc_labels(root / "Annotations" / f"{stem}.xml", files.get(stem, folder / stem), number)
        for number, stem in enumerate(_voc_split(root, split), start=1)
    ]
    names = class_names or sorted({name for image in labels for name in image.names})
    return Annotations(tuple(names), _numbered(root, labels, names))


def _coco_labels(
    folder: Path,
    images: Iterable[Mapping[str, Any]],
    categories: Mapping[int, str],
    targets: Iterable[Mapping[str, Any]],
) -> list[_Labels]:
    by_image = defaultdict(list)
    for entry in targets:
        by_image[entry["image_id"]].append(entry)
    labels: list[_Labels] = []
    known = set()
    for image in images:
        if image["id"] in known:
            raise ValueError(f"two images have the id {image['id']}")
        known.add(image["id"])
        entries = by_image.pop(image["id"], [])
        corners = [_corners(*entry["bbox"]) for entry in entries]
        names = [categories[entry["category_id"]] for entry in entries]
        size = _known_size(image.get("height"), image.get("width"))
        labels.append(_Labels(folder / image["file_name"], image["id"], size, corners, names))
    if by_image:
        raise ValueError(f"annotations of image {next(iter(by_image))}, which is not listed")
    return labels


def _corners(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    x, y = float(x), float(y)
    return x, y, x + float(width), y + float(height)


def _voc_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelExportError(f"{root} is no VOC folder with a split {split}: {error}") from error
    stems = [line.strip() for line in lines if line.strip()]
    # Lists of one class add a column of -1, 0 or 1; but a file may also be named `photo 1`.
    marks = [re.fullmatch(r"(.*\S)\s+(?:-1|0|1)", stem) for stem in stems]
    if all(marks):
        return [mark[1] for mark in marks if mark]
    return stems


def _voc_labels(path: Path, image: Path, number: int) -> _Labels:
    try:
        root = _xml(path.read_bytes())
        size = _known_size(root.findtext("size/height"), root.findtext("size/width"))
        objects = root.findall("object")
        names = [_text(entry, "name") for entry in objects]
        corners = [
            (
                float(_text(entry, "bndbox/xmin")),
                float(_text(entry, "bndbox/ymin")),
                float(_text(entry, "bndbox/xmax")),
                float(_text(entry, "bndbox/ymax")),
            )
            for entry in objects
        ]
    except (OSError, ValueError, ET.ParseError) as error:
        raise ModelExportError(f"{path} is no VOC annotation: {error}") from error
    return _Labels(image, number, size, corners, names)


def _xml(content: bytes) -> ET.Element:
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("it has a DTD")
    # Without a DTD there are no entities to grow, and expat fetches nothing.
    return ET.fromstring(content)  # noqa: S314


def _text(element: ET.Element, path: str) -> str:
    text = element.findtext(path)
    if not text or not text.strip():
        raise ValueError(f"an object has no {path}")
    return text.strip()


def _known_size(height: float | str | None, width: float | str | None) -> tuple[int, int] | None:
    """Many tools write no size, or 0 for one that they did not know."""
    known = int(float(height or 0)), int(float(width or 0))
    return known if min(known) > 0 else None


def _numbered(
    source: Path, labels: Sequence[_Labels], class_names: Sequence[str]
) -> tuple[AnnotatedImage, ...]:
    """The images with class ids for names.

    Raises:
        ModelExportError: There are no images or classes, or an unknown or ambiguous class.
    """
    ids = {name: class_id for class_id, name in enumerate(class_names)}
    if not labels or not ids:
        raise ModelExportError(f"{source} lists no {'classes' if labels else 'images'}")
    if len(ids) < len(class_names):
        raise ModelExportError(f"{source}: a class name stands for two classes")
    unknown = sorted({name for image in labels for name in image.names} - ids.keys())
    if unknown:
        raise ModelExportError(f"{source} has classes beyond the model's: {', '.join(unknown)}")
    return tuple(
        AnnotatedImage(
            path=image.path,
            image_id=image.image_id,
            size=image.size,
            boxes_xyxy=np.array(image.corners, dtype=np.float32).reshape(-1, 4),
            class_ids=np.array([ids[name] for name in image.names], dtype=np.int64),
        )
        for image in labels
    )
