"""The detection options of published YOLOX results."""

from typing import Final

from service.core.suppress import DetectionOptions

# COCO's metrics need boxes of nearly all scores, and suppression within each class.
MEASURING: Final = DetectionOptions(
    confidence=0.001, score_by="joint", nms="hard", iou=0.65, class_agnostic=False
)
