"""Measure a model that is being trained, as `evaluate` would measure its file."""

from dataclasses import dataclass

from torch import nn

from model_export.coco import CocoSet, Metrics, measure
from model_export.evaluate import detect_all
from model_export.local_detector import LocalDetector, torch_network
from model_export.measuring import MEASURING
from service.core.contract import ModelContract

# Images that are decoded and suppressed beside the one that the network has.
CONCURRENCY = 4


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
