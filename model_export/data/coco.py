"""The reader of COCO json files, for training and for measuring alike."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_export.data.annotations import Annotations, NamedBoxes, known_size, number_classes
from model_export.errors import ModelExportError


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image that a COCO json lists.

    Attributes:
        image_id: Its id.
        path: The image file.
        size: Height and width in pixels, if the json states them.
    """

    image_id: int
    path: Path
    size: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """An object on an image.

    Attributes:
        image_id: The image, which the file lists.
        category_id: The category, which the file lists.
        box_xywh: Left edge, top edge, width and height in image pixels, as written.
        area: The area of the object's mask in pixels; without a mask, that of the box.
        is_crowd: Whether the box surrounds many objects that are not annotated one by one.
    """

    image_id: int
    category_id: int
    box_xywh: tuple[float, float, float, float]
    area: float
    is_crowd: bool

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """The box as x1, y1, x2, y2 in image pixels."""
        x, y, width, height = self.box_xywh
        return x, y, x + width, y + height


@dataclass(frozen=True, slots=True)
class CocoFile:
    """The content of a COCO json, checked to be consistent.

    Attributes:
        path: The json.
        images: At least one; their ids differ.
        categories: Category id to name, at least one; the names differ.
        annotations: In the order of the file.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    annotations: tuple[CocoAnnotation, ...]

    def targets(self, class_names: Sequence[str] | None = None) -> Annotations:
        """The boxes that a model can learn, which crowds are not.

        Args:
            class_names: Class id to name (default: the categories in the order of their ids).

        Raises:
            ModelExportError: A box has a class that is not in `class_names`.
        """
        of_image = defaultdict(list)
        for each in self.annotations:
            if not each.is_crowd:
                of_image[each.image_id].append(each)
        boxes = [self._named(image, of_image[image.image_id]) for image in self.images]
        names = class_names or [self.categories[category] for category in sorted(self.categories)]
        crowd = sum(each.is_crowd for each in self.annotations)
        return Annotations(tuple(names), number_classes(self.path, boxes, names), crowd)

    def _named(self, image: CocoImage, objects: Sequence[CocoAnnotation]) -> NamedBoxes:
        corners = [each.corners for each in objects]
        names = [self.categories[each.category_id] for each in objects]
        return NamedBoxes(image.path, image.image_id, image.size, corners, names)


def read_coco(path: Path, folder: Path) -> CocoFile:
    """Read and check a COCO json.

    Args:
        path: The json.
        folder: The folder that the json's file names are relative to; no image is opened.

    Raises:
        ModelExportError: The file cannot be read, is no COCO json, or contradicts itself.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = tuple(_image(entry, folder) for entry in content["images"])
        categories = _categories(content["categories"])
        ids = _unique_ids(images)
        annotations = tuple(
            _annotation(entry, number, ids, categories)
            for number, entry in enumerate(content["annotations"], start=1)
        )
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error
    except KeyError as error:
        raise ModelExportError(f"{path} is no COCO annotation file: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelExportError(f"{path} is no COCO annotation file: {error}") from error
    if not images or not categories:
        raise ModelExportError(f"{path} lists no {'categories' if images else 'images'}")
    return CocoFile(path, images, categories, annotations)


def _image(entry: Mapping[str, Any], folder: Path) -> CocoImage:
    size = known_size(entry.get("height"), entry.get("width"))
    return CocoImage(entry["id"], folder / entry["file_name"], size)


def _unique_ids(images: Iterable[CocoImage]) -> set[int]:
    ids = set[int]()
    for image in images:
        if image.image_id in ids:
            raise ValueError(f"two images have the id {image.image_id}")
        ids.add(image.image_id)
    return ids


def _categories(entries: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Category id to name; models are matched by name, so that two of one name are refused."""
    ids = dict[str, int]()
    for entry in entries:
        category, name = entry["id"], str(entry["name"])
        if ids.setdefault(name, category) != category:
            raise ValueError(f"categories {ids[name]} and {category} are both called {name}")
    return {category: name for name, category in ids.items()}


def _annotation(
    entry: Mapping[str, Any], number: int, images: Collection[int], categories: Collection[int]
) -> CocoAnnotation:
    """Check one entry; `number` counts from 1 and names it in errors, for many lack an id."""
    for name, listed in (("image_id", images), ("category_id", categories), ("bbox", None)):
        if entry.get(name) is None:
            raise ValueError(f"annotation {number} has no {name}")
        if listed is not None and entry[name] not in listed:
            raise ValueError(
                f"annotation {number} has the {name} {entry[name]}, which is not listed"
            )
    box = _box(entry["bbox"], number)
    area = entry.get("area")
    return CocoAnnotation(
        image_id=entry["image_id"],
        category_id=entry["category_id"],
        box_xywh=box,
        area=box[2] * box[3] if area is None else float(area),
        is_crowd=bool(entry.get("iscrowd")),
    )


def _box(values: Sequence[float], number: int) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, values)
    except (TypeError, ValueError):
        raise ValueError(f"annotation {number} has a bbox that is not four numbers") from None
    return x, y, width, height
