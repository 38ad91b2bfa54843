"""Weights of classes by their frequency, for data in which some are rare."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

# The largest weight: that of a class of one box would outweigh everything else.
MAX_WEIGHT: Final = 10.0


def balanced_weights(boxes: NDArray[np.int64], power: float) -> NDArray[np.float32]:
    """Weights of classes that fall with their number of boxes, with a mean of 1 over all boxes.

    Args:
        boxes: (C,) the number of boxes of each class.
        power: A class of n boxes has a weight in proportion to n to the power of minus this: with
            1, all classes count the same in sum; 0.5 is half of the way.

    Returns:
        (C,) float32, at most `MAX_WEIGHT`; 1 for classes without boxes.
    """
    present = boxes > 0
    weights = np.ones(len(boxes))
    weights[present] = boxes[present].astype(np.float64) ** -power
    weights[present] *= boxes.sum() / max(1e-12, float((weights * boxes).sum()))
    return np.minimum(weights, MAX_WEIGHT).astype(np.float32)
