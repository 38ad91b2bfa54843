"""The options with which published YOLOX results are measured."""

from typing import Final

from service.core.suppress import DetectionOptions

# COCO's metrics look at every score: nearly all boxes count, and classes do not compete.
MEASURING: Final = DetectionOptions(
    confidence=0.001, score_by="joint", nms="hard", iou=0.65, class_agnostic=False
)
