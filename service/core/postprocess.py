"""Turn the raw rows of one image into detections in that image."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.core.contract import ModelContract
from service.core.decode import Detections, anchor_grid, decode_candidates
from service.core.letterbox import Letterbox
from service.core.suppress import DetectionOptions, suppress


def find_objects(
    raw: NDArray[np.floating],
    letterbox: Letterbox,
    contract: ModelContract,
    options: DetectionOptions,
    cells: NDArray[np.int64] | None = None,
) -> Detections:
    """Filter, decode and suppress raw rows, then map the boxes back to the image.

    Args:
        raw: (K, 4 + 1 + C) network output of one image.
        letterbox: The image's position in the network's input.
        contract: The model's contract, which says how to read the rows.
        options: Thresholds, suppression and classes.
        cells: (K,) int64, the grid cell of each row, ascending; None if every cell has its row.

    Returns:
        Detections, best first; boxes in image pixels, clipped to the image. A box that lies wholly
        in the padding is dropped.
    """
    grid = anchor_grid(letterbox.network_height, letterbox.network_width, contract.strides)
    candidates = decode_candidates(
        raw,
        grid if cells is None else grid.take(cells),
        contract,
        confidence=options.confidence,
        score_by=options.score_by,
        max_candidates=options.max_candidates,
        class_ids=options.class_ids,
    )
    found = suppress(candidates, options)
    boxes = letterbox.to_image(found.boxes_xyxy)
    visible = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    in_image = replace(found, boxes_xyxy=boxes)
    return in_image if len(visible) == len(boxes) else in_image.take(visible)
