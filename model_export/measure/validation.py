"""Measuring a model while it is trained, as `evaluate` would measure its file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from model_export.data.annotations import AnnotatedImage
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_coco_file, read_source
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.measure.coco import (
    CocoBox,
    CocoSet,
    Metrics,
    coco_set_of,
    make_coco_set,
    measure,
)
from model_export.measure.evaluate import detect_all
from model_export.measure.local_detector import LocalDetector, torch_network
from model_export.measure.published_options import MEASURING
from service.core.contract import ModelContract

# While the network runs on one image, the others are decoded or postprocessed.
CONCURRENCY: Final = 4


@dataclass(frozen=True, slots=True)
class Validation:
    """Annotated images that a model never learns from.

    Attributes:
        coco: The images.
        contract: The model's classes, size and box coding.
    """

    coco: CocoSet
    contract: ModelContract

    def measure(self, model: nn.Module) -> Metrics:
        """The COCO metrics of a model in evaluation mode, on whatever device it is."""
        detector = LocalDetector(torch_network(model), self.contract, MEASURING)
        results = detect_all(detector, self.coco, concurrency=CONCURRENCY, on_image=lambda: None)
        return measure(self.coco, results)


@dataclass(frozen=True, slots=True)
class ValidationData:
    """Annotated images to measure on, in two forms.

    Attributes:
        coco: For COCO's metrics.
        checked: For reports.
    """

    coco: CocoSet
    checked: CheckedImages


def read_validation_set(source: DataSource, class_names: Sequence[str]) -> ValidationData:
    """Read the images to measure on, every file once.

    Args:
        source: Where they are.
        class_names: The model's classes; the data set may have fewer.

    Raises:
        ModelExportError: The annotations or an image cannot be used, or nothing is annotated.
    """
    checked = check_images(read_source(source, class_names))
    _refuse_no_boxes(source, checked)
    file = read_coco_file(source)
    # Not of the checked boxes: COCO's metrics treat crowds apart, and go by areas of masks.
    coco = coco_set_of(file) if file else coco_set_of_images(checked.images, class_names)
    return ValidationData(coco, checked)


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
