"""Turn one image's raw rows into detections in image pixels."""

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.decode import Detections, anchor_grid, decode_candidates
from service.core.letterbox import Letterbox
from service.core.suppress import DetectionOptions, suppress


def find_objects(
    raw: NDArray[np.floating],
    way_back: Letterbox,
    contract: ModelContract,
    options: DetectionOptions,
) -> Detections:
    """Filter, decode and suppress, then map the boxes back to the image.

    Args:
        raw: (A, 4 + 1 + C) network output of one image.
        way_back: How the image lies in the network's input.
        contract: How to read the rows.
        options: Thresholds, suppression and classes.

    Returns:
        Detections, best first; boxes in image pixels, clipped to the image. Boxes that lie wholly
        in the padding are dropped.
    """
    candidates = decode_candidates(
        raw,
        anchor_grid(way_back.network_height, way_back.network_width, contract.strides),
        contract,
        confidence=options.confidence,
        score_by=options.score_by,
        max_candidates=options.max_candidates,
        class_ids=options.class_ids,
    )
    found = suppress(candidates, options)
    boxes = way_back.to_image(found.boxes_xyxy)
    visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    return Detections(boxes, found.scores, found.objectness, found.class_ids).take(visible)
