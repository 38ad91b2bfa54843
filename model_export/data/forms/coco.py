"""The reader of COCO json files, for training and for measuring alike."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from model_export.data.annotations import Annotations, NamedBoxes, Reading, known_size
from model_export.data.forms.coco_categories import (
    categories_of,
    identifier,
    unused_groups,
    without_twins,
)
from model_export.data.forms.found_images import ImageFinder
from model_export.data.texts import read_text
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
        notes: Everything that was left out, in lines for a person.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: Mapping[int, str]
    annotations: tuple[CocoAnnotation, ...]
    notes: tuple[str, ...] = ()

    def targets(self, class_names: Sequence[str] | None = None) -> Annotations:
        """The boxes that a model can learn, which crowds are not.

        Args:
            class_names: Class id to name (default: the categories in the order of their ids).

        Raises:
            ModelExportError: A box has a class that is not in `class_names`.
        """
        return self.reading().annotations(class_names)

    def reading(self) -> Reading:
        """The boxes that a model can learn, by the names of their classes."""
        of_image = defaultdict(list)
        for each in self.annotations:
            if not each.is_crowd:
                of_image[each.image_id].append(each)
        boxes = [self._named(image, of_image[image.image_id]) for image in self.images]
        # Text sorts after numbers, with which it cannot be compared.
        order = sorted(self.categories, key=lambda each: (isinstance(each, str), each))
        names = tuple(self.categories[category] for category in order)
        crowd = sum(each.is_crowd for each in self.annotations)
        return Reading(self.path, boxes, names, numbered=True, crowd=crowd, notes=self.notes)

    def only(self, image_ids: Collection[int]) -> "CocoFile":
        """The same file with some of its images."""
        return replace(
            self,
            images=tuple(each for each in self.images if each.image_id in image_ids),
            annotations=tuple(each for each in self.annotations if each.image_id in image_ids),
        )

    def _named(self, image: CocoImage, objects: Sequence[CocoAnnotation]) -> NamedBoxes:
        corners = [each.corners for each in objects]
        names = [self.categories[each.category_id] for each in objects]
        return NamedBoxes(image.path, image.image_id, image.size, corners, names)


def read_coco(path: Path, folder: Path | None = None) -> CocoFile:
    """Read and check a COCO json.

    A category without annotations that is the supercategory of others is left out: Roboflow writes
    one with the id 0, named after the project.

    Args:
        path: The json.
        folder: The folder that the json's file names are relative to (default: the json's folder,
            else the folders where CVAT, Label Studio and COCO itself put the images). No image is
            opened.

    Raises:
        ModelExportError: The file cannot be read, is no COCO json, or contradicts itself.
    """
    try:
        lists = _Lists.of(json.loads(read_text(path)))
        finder = ImageFinder([folder] if folder else image_folders(path))
        images = tuple(_image(entry, at, finder) for at, entry in _counted(lists.images, "image"))
        finder.refuse_strays()
        ids = _unique_ids(images)
        entries, twins = without_twins(_counted(lists.categories, "category"), lists.annotations)
        categories = categories_of(entries)
        annotations = tuple(
            _annotation(entry, at, ids, categories)
            for at, entry in _counted(lists.annotations, "annotation")
        )
    except json.JSONDecodeError as error:
        raise ModelExportError(
            f"{path} is no COCO annotation file: it is no JSON at line {error.lineno}: "
            f"{error.msg}; other forms become one by `convert --to coco`"
        ) from error
    except RecursionError as error:
        raise ModelExportError(
            f"{path} is no COCO annotation file: it is nested too deep"
        ) from error
    except ValueError as error:
        raise ModelExportError(f"{path} is no COCO annotation file: {error}") from error
    if not images or not categories:
        raise ModelExportError(f"{path} lists no {'categories' if images else 'images'}")
    groups = unused_groups(entries, {each.category_id for each in annotations})
    kept = {number: name for number, name in categories.items() if number not in groups}
    unused = (
        f"left out the category {categories[each]!r}: it has no boxes, and only groups the others"
        for each in groups
    )
    return CocoFile(path, images, kept, annotations, (*twins, *unused))


def image_folders(path: Path) -> list[Path]:
    """The folders where tools put the images of a COCO json, the likeliest first."""
    split = path.stem.removeprefix("instances_")
    around = [path.parent, path.parent.parent]
    names = ("images", split, f"images/{split}", "data")
    named = [folder / name for folder in around for name in names]
    return [path.parent, *named, path.parent.parent]


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists of a COCO json, their entries unchecked."""

    images: Sequence[object]
    annotations: Sequence[object]
    categories: Sequence[object]

    @classmethod
    def of(cls, content: object) -> "_Lists":
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object with images, annotations and categories")  # noqa: TRY004
        for name in ("images", "annotations", "categories"):
            if not isinstance(content.get(name), list):
                raise ValueError(f"it has no list of {name}")  # noqa: TRY004
        return cls(content["images"], content["annotations"], content["categories"])


def _counted(entries: Sequence[object], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Entries, and how messages name them: by their position, for many lack an id."""
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise ValueError(f"{kind} {number} is not a JSON object")  # noqa: TRY004
        yield f"{kind} {number}", entry


def _image(entry: Mapping[str, Any], at: str, finder: ImageFinder) -> CocoImage:
    name = entry.get("file_name") or _in_url(entry.get("coco_url"))
    if not isinstance(name, str) or not name:
        raise ValueError(f"{at} has no file_name")
    try:
        size = known_size(entry.get("height"), entry.get("width"))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{at} has a height or width that is no number") from None
    return CocoImage(identifier(entry, "id", at), finder.find(name), size)


def _in_url(url: object) -> str | None:
    """The folder and name of LVIS's images, which it states as addresses alone."""
    return "/".join(PurePosixPath(url).parts[-2:]) if isinstance(url, str) else None


def _unique_ids(images: Iterable[CocoImage]) -> set[int]:
    ids = set[int]()
    for image in images:
        if image.image_id in ids:
            raise ValueError(f"two images have the id {image.image_id}")
        ids.add(image.image_id)
    return ids


def _annotation(
    entry: Mapping[str, Any], at: str, images: Collection[int], categories: Collection[int]
) -> CocoAnnotation:
    for name, listed in (("image_id", images), ("category_id", categories)):
        if identifier(entry, name, at) not in listed:
            raise ValueError(
                f"{at} has the {name} {json.dumps(entry[name])}, which is not listed; add it to "
                f"the {'images' if listed is images else 'categories'}, or remove the annotation"
            )
    box, area = _box(entry, at), entry.get("area")
    try:
        area = box[2] * box[3] if area is None else float(area)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{at} has an area that is no number") from None
    return CocoAnnotation(
        image_id=identifier(entry, "image_id", at),
        category_id=identifier(entry, "category_id", at),
        box_xywh=box,
        area=area,
        is_crowd=_is_crowd(entry.get("iscrowd"), at),
    )


def _is_crowd(value: object, at: str) -> bool:
    """Whether an annotation is one of a crowd; some tools write the number or truth as text."""
    text = str(value or "0").strip().lower()
    if text in ("0", "0.0", "false"):
        return False
    if text in ("1", "1.0", "true"):
        return True
    raise ValueError(f"{at} has the iscrowd {json.dumps(value)}, which is neither 0 nor 1")


def _box(entry: Mapping[str, Any], at: str) -> tuple[float, float, float, float]:
    """The box as written, or the one around the polygons of an annotation that has no box."""
    values = entry.get("bbox") or _around(entry.get("segmentation"))
    if values is None:
        raise ValueError(f"{at} has no bbox")
    try:
        # Text and maps can be taken apart into four, too.
        x, y, width, height = map(float, values if isinstance(values, list) else ())
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{at} has a bbox that is not four numbers: {json.dumps(values)[:60]}"
        ) from None
    return x, y, width, height


def _around(polygons: object) -> list[float] | None:
    """Left, top, width and height of the box around polygons, if these are some."""
    if not isinstance(polygons, list) or not all(isinstance(each, list) for each in polygons):
        return None
    try:
        corners = [float(number) for polygon in polygons for number in polygon]
    except (TypeError, ValueError, OverflowError):
        return None
    x, y = corners[::2], corners[1::2]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)] if x and y else None
