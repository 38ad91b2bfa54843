"""The thresholds that YOLOX's weights are recommended with, where nothing else is known of them."""

from typing import Final

from service.core.contract import BoxCoding, Recommended
from service.core.suppress import PRESETS

USUAL_THRESHOLDS: Final = PRESETS["yolox"]
USUAL_NOTE: Final = (
    "recommends what YOLOX's own tools show boxes by: joint scores from 0.3, hard suppression of "
    "all classes together at an IoU of 0.45; --score-by and --nms state others"
)


def usual_thresholds(box_coding: BoxCoding) -> Recommended:
    """Those of YOLOX's own tools; none for the article's box coding.

    The article's coding comes with the article's thresholds, which are the service's defaults.
    """
    return USUAL_THRESHOLDS if box_coding == "yolox" else Recommended()
