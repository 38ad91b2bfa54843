"""Names that clients give to options, and the options that they mean."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Final

# Names of other detectors, servers and client libraries.
OTHER_NAMES: Final = {
    "conf": "confidence",
    "conf_thr": "confidence",
    "conf_thres": "confidence",
    "conf_thresh": "confidence",
    "conf_threshold": "confidence",
    "confidence_threshold": "confidence",
    "min_conf": "confidence",
    "min_confidence": "confidence",
    "min_score": "confidence",
    "score": "confidence",
    "score_thr": "confidence",
    "score_thresh": "confidence",
    "score_threshold": "confidence",
    "thresh": "confidence",
    "threshold": "confidence",
    "iou_thr": "iou",
    "iou_thres": "iou",
    "iou_thresh": "iou",
    "iou_threshold": "iou",
    "nms_thr": "iou",
    "nms_thresh": "iou",
    "nms_threshold": "iou",
    "overlap": "iou",
    "nms_method": "nms",
    "agnostic": "class_agnostic",
    "agnostic_nms": "class_agnostic",
    "limit": "max_detections",
    "max_boxes": "max_detections",
    "max_det": "max_detections",
    "max_results": "max_detections",
    "top_k": "max_detections",
    "topk": "max_detections",
    "class": "classes",
    "class_ids": "classes",
    "class_names": "classes",
    "labels": "classes",
    "timeout": "timeout_ms",
    "fmt": "format",
    "output_format": "format",
    "response_format": "format",
    "bbox": "boxes",
    "bbox_format": "boxes",
    "box": "boxes",
    "box_form": "boxes",
    "box_format": "boxes",
    "box_type": "boxes",
    "relative": "normalized",
    "image": "images",
    "image_base64": "images",
    "file": "images",
    "files": "images",
}
# Among the names of usual fields of forms, none is so close to an option.
CLOSE: Final = 0.8
# Names of any length would cost time that grows with its square.
MAX_LENGTH: Final = 40
CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@lru_cache(maxsize=256)
def _meant(name: str, options: tuple[str, ...]) -> str | None:
    words = CAPITAL.sub("_", name).lower().replace("-", "_").replace(" ", "_")
    if OTHER_NAMES.get(words) in options:
        return OTHER_NAMES[words]
    close = get_close_matches(words, options, 1, CLOSE)
    return close[0] if close else None


def meant_option(name: str, options: Iterable[str]) -> str | None:
    """The option that a name is, or most likely stands for; None if it resembles none.

    Args:
        name: The name that a client wrote.
        options: The names that there are.
    """
    known = tuple(options)
    if name in known:
        return name
    return _meant(name, known) if len(name) <= MAX_LENGTH else None


def meant_word(word: str, known: Sequence[str]) -> str | None:
    """The one of several names that a misspelt one resembles most, whatever its case; or None."""
    if len(word) > MAX_LENGTH:
        return None
    spelt = {_plain(name): name for name in reversed(known)}
    close = get_close_matches(_plain(word), spelt, 1, CLOSE)
    return spelt[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")
