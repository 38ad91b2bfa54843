"""Measure a model that is being trained, as `evaluate` would measure its file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from torch import nn

from model_export.data.annotations import read_annotations
from model_export.data.examples import check_images
from model_export.errors import ModelExportError
from model_export.measure.coco import CocoSet, Metrics, measure, read_coco_set
from model_export.measure.evaluate import detect_all
from model_export.measure.local_detector import LocalDetector, torch_network
from model_export.measure.published_options import MEASURING
from model_export.measure.validation_set import coco_set
from model_export.training.config import DataSource
from service.core.contract import ModelContract

# Images that are decoded and suppressed while the network has another.
CONCURRENCY: Final = 4


@dataclass(frozen=True, slots=True)
class Validation:
    """Annotated images that are never learnt from.

    Attributes:
        coco: The images.
        contract: The model's classes, size and box coding.
    """

    coco: CocoSet
    contract: ModelContract

    def measure(self, model: nn.Module) -> Metrics:
        """The COCO metrics of a model in evaluation mode, on whichever device it is."""
        detector = LocalDetector(torch_network(model), self.contract, MEASURING)
        results = detect_all(detector, self.coco, concurrency=CONCURRENCY, on_image=lambda: None)
        return measure(self.coco, results)


def read_validation_set(source: DataSource, class_names: Sequence[str]) -> CocoSet:
    """The images to measure on, each read once.

    Args:
        source: Where they are.
        class_names: The model's classes; the set may have fewer.

    Raises:
        ModelExportError: Something is wrong with the annotations or an image.
    """
    annotations = read_annotations(
        source.path, source.images, split=source.split, class_names=class_names
    )
    checked = check_images(annotations)
    if not any(len(image.boxes_xyxy) for image in checked.images):
        raise ModelExportError(f"{source.path} has no boxes to measure on")
    if source.path.is_dir():
        return coco_set(checked.images, class_names)
    # The file itself has crowds and areas of masks, which COCO's metrics look at.
    return read_coco_set(source.path, source.images or source.path.parent)
