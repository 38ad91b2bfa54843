"""Measuring a model while it is trained, as `evaluate` would measure its file."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from model_export.measure.batches import BATCH, ImageBatches, ImageRows, in_threads
from model_export.measure.coco import CocoResult, CocoSet, Metrics, measure
from model_export.measure.evaluate import coco_result, match_categories
from model_export.measure.local_detector import named_objects, torch_network
from model_export.measure.published_options import MEASURING
from service.core.contract import ModelContract


@dataclass(frozen=True, slots=True)
class Validation:
    """Annotated images that a model never learns from.

    Attributes:
        coco: The images.
        contract: The model's classes, size and box coding.
        batch_size: Images that the network takes at once, at most.
    """

    coco: CocoSet
    contract: ModelContract
    batch_size: int = BATCH

    def measure(self, model: nn.Module) -> Metrics:
        """The COCO metrics of a model in evaluation mode, on whatever device it is."""
        ids, paths = list(self.coco.images), list(self.coco.images.values())
        categories = match_categories(self.contract.class_names, self.coco)
        batches = ImageBatches(paths, self.contract, self.batch_size)
        # While the network runs on a batch, the rows of the last one are turned into detections.
        rows = batches.run(torch_network(model))
        by_image = dict(in_threads(partial(self._results, ids, categories), rows))
        return measure(
            self.coco, [each for number in sorted(by_image) for each in by_image[number]]
        )

    def _results(
        self, ids: list[int], categories: dict[str, int], rows: ImageRows
    ) -> tuple[int, list[CocoResult]]:
        found = named_objects(rows.raw, rows.way_back, self.contract, MEASURING)
        return rows.number, [
            coco_result(ids[rows.number], categories[each.class_name], each)
            for each in found
            if each.class_name in categories
        ]
