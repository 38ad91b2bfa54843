"""Reading annotated images of any form to measure on; needs no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from model_export.data.annotations import AnnotatedImage
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_coco_file, read_source
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.measure.coco import (
    CocoBox,
    CocoSet,
    coco_set_of,
    make_coco_set,
    refuse_missing_images,
)


@dataclass(frozen=True, slots=True)
class ValidationData:
    """Annotated images to measure on, in two forms.

    Attributes:
        coco: For COCO's metrics.
        checked: For reports.
    """

    coco: CocoSet
    checked: CheckedImages

    def as_one_class(self, name: str) -> "ValidationData":
        """The same data with one class for all boxes."""
        return ValidationData(self.coco.as_one_class(name), self.checked.as_one_class(name))


def read_validation_set(
    source: DataSource, class_names: Sequence[str] | None = None
) -> ValidationData:
    """Read the images to measure on, every file once.

    Args:
        source: Where they are.
        class_names: The model's classes, of which the data set may have fewer (default: the data
            set's own).

    Raises:
        ModelExportError: The annotations or an image cannot be used, or nothing is annotated.
    """
    checked = check_images(read_source(source, class_names))
    _refuse_no_boxes(source, checked)
    file = read_coco_file(source)
    # Not of the checked boxes: COCO's metrics treat crowds apart, and go by areas of masks.
    names = checked.class_names
    coco = coco_set_of(file) if file else coco_set_of_images(checked.images, names)
    return ValidationData(coco, checked)


def read_set_to_measure(source: DataSource) -> tuple[CocoSet, list[str]]:
    """Read annotated images of any form, with the classes that they have.

    Every file is read once, except those of a COCO json, which need not even be images.

    Args:
        source: Where they are.

    Returns:
        The set, and what was read in lines for a person.

    Raises:
        ModelExportError: The annotations or an image cannot be used, or nothing is annotated.
    """
    file = read_coco_file(source)
    if file is None:
        data = read_validation_set(source)
        return data.coco, data.checked.report()
    coco = coco_set_of(file)
    refuse_missing_images(coco)
    return coco, list(file.notes)


def coco_set_of_images(images: Sequence[AnnotatedImage], class_names: Sequence[str]) -> CocoSet:
    """Checked images as a set to measure on.

    Category ids count from 1 in the order of the classes. Areas, by which metrics tell small
    objects from large ones, are those of the boxes.

    Args:
        images: With ids that differ, and boxes in image pixels.
        class_names: Class id to name.
    """
    files = {image.image_id: image.path for image in images}
    categories = dict(enumerate(class_names, start=1))
    return make_coco_set(files, categories, (box for image in images for box in _boxes(image)))


def _boxes(image: AnnotatedImage) -> Iterator[CocoBox]:
    rows = zip(image.boxes_xyxy.tolist(), image.class_ids.tolist(), strict=True)
    for (x1, y1, x2, y2), class_id in rows:
        bbox = [x1, y1, x2 - x1, y2 - y1]
        yield CocoBox(image_id=image.image_id, category_id=class_id + 1, bbox=bbox)


def _refuse_no_boxes(source: DataSource, checked: CheckedImages) -> None:
    if not any(len(image.boxes_xyxy) for image in checked.images):
        raise ModelExportError(f"{source.name} has no boxes to measure on")
