"""The options that a model detects best with, found on validation images.

The network runs once on each image. Its rows are kept, and each set of options is tried on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from model_export.data.annotations import AnnotatedImage
from model_export.measure.batches import ImageBatches
from model_export.measure.local_detector import torch_network
from model_export.measure.matching import Matches, match
from service.core.contract import ModelContract, NmsMethod, Recommended, ScoreBy
from service.core.decode import Detections, raw_threshold
from service.core.letterbox import Letterbox
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions

# Images that the options are tried on, spread evenly over the validation data; bounds the time.
MAX_IMAGES: Final = 500
# Confidences that are tried. Rows of a lower objectness are not kept.
CONFIDENCES: Final = tuple(i / 100 for i in range(1, 100))
# Options are preferred in their order unless later ones are better by more than this.
WORTH_IT: Final = 0.002
ARTICLE: Final = DetectionOptions(confidence=CONFIDENCES[0])
METHODS: Final[tuple[tuple[NmsMethod, float], ...]] = (
    *(("soft-mean", 0.45), ("soft-mean", 0.65), ("hard", 0.45), ("hard", 0.65)),
    *(("soft-linear", 0.45), ("soft-linear", 0.65), ("soft-gaussian", 0.45)),
)
SCORES: Final[tuple[ScoreBy, ...]] = ("objectness", "joint")
OPTIONS: Final = tuple(
    replace(ARTICLE, score_by=score_by, nms=nms, iou=iou, class_agnostic=False)
    for score_by in SCORES
    for nms, iou in METHODS
)


@dataclass(frozen=True, slots=True)
class Quality:
    """How well detections above a confidence agree with the truth at IoU 0.50, each 0 to 1.

    Attributes:
        confidence: The confidence.
        f1: Harmonic mean of precision and recall.
        precision: Share of the detections that are right.
        recall: Share of the objects that are found.
    """

    confidence: float
    f1: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The options that measured best, and their results.

    Attributes:
        options: The options, with the confidence of the best F1.
        overall: The quality of these options over the boxes of all classes.
        by_class: Class name to the best quality that a confidence of its own gives; classes
            without annotations or without any right detection are absent.
        curve: The quality at each of `CONFIDENCES`, all classes.
        tried: Each set of options by name, and its best F1.
        found: The detections of each image with these options, image pixels.
        images: The images that the options were tried on.
    """

    options: DetectionOptions
    overall: Quality
    by_class: Mapping[str, Quality]
    curve: Sequence[Quality]
    tried: Mapping[str, float]
    found: Sequence[Detections]
    images: Sequence[AnnotatedImage]

    def recommended(self) -> Recommended:
        """The advice for the model's contract; none if nothing right was found."""
        if not self.overall.f1:
            return Recommended()
        best = self.options
        return Recommended(
            confidence=best.confidence,
            score_by=best.score_by,
            nms=best.nms,
            iou=best.iou,
            class_agnostic=best.class_agnostic,
        )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one image that may become detections.

    Attributes:
        raw: (K, 4 + 1 + C) float32.
        cells: (K,) int64, their cells, ascending.
        way_back: From the network's input to the image.
    """

    raw: NDArray[np.floating]
    cells: NDArray[np.int64]
    way_back: Letterbox


def best_thresholds(
    model: nn.Module, contract: ModelContract, images: Sequence[AnnotatedImage]
) -> Thresholds:
    """Try options on validation images; the best has the highest F1 at any confidence.

    Args:
        model: In evaluation mode, on whatever device it is.
        contract: How to read its rows.
        images: Validation images with their boxes; at most `MAX_IMAGES` of them are looked at.

    Raises:
        ModelExportError: An image cannot be read.
    """
    step = -(-len(images) // MAX_IMAGES)
    chosen = images[::step]
    rows = _rows(model, contract, chosen)
    curves = {options: _curve(_matches(rows, chosen, contract, options)) for options in OPTIONS}
    best = OPTIONS[0]
    for options in OPTIONS[1:]:
        if _best_f1(curves[options]) > _best_f1(curves[best]) + WORTH_IT:
            best = options
    # Only for the best of them, because each trial takes as long as the others.
    agnostic = replace(best, class_agnostic=True)
    curves[agnostic] = _curve(_matches(rows, chosen, contract, agnostic))
    if _best_f1(curves[agnostic]) > _best_f1(curves[best]) + WORTH_IT:
        best = agnostic
    final = replace(best, confidence=_best(curves[best]).confidence)
    found = [find_objects(r.raw, r.way_back, contract, final, r.cells) for r in rows]
    matches = match(found, chosen)
    return Thresholds(
        options=final,
        overall=_quality(matches, final.confidence),
        by_class=dict(_by_class(_matches(rows, chosen, contract, best), contract.class_names)),
        curve=curves[best],
        tried={option_name(options): _best_f1(curve) for options, curve in curves.items()},
        found=found,
        images=chosen,
    )


def option_name(options: DetectionOptions) -> str:
    """Score, suppression and overlap in a few words."""
    overlap = "" if options.nms == "soft-gaussian" else f", IoU {options.iou:g}"
    across = ", across classes" if options.class_agnostic else ""
    return f"{options.score_by}, {options.nms}{overlap}{across}"


def _rows(
    model: nn.Module, contract: ModelContract, images: Sequence[AnnotatedImage]
) -> list[_Rows]:
    lowest = raw_threshold(contract, CONFIDENCES[0])
    batches = ImageBatches([image.path for image in images], contract)
    kept = {}
    for number, raw, way_back in batches.run(torch_network(model)):
        cells = np.flatnonzero(raw[:, 4] >= lowest).astype(np.int64)
        kept[number] = _Rows(raw[cells], cells, way_back)
    return [kept[number] for number in range(len(images))]


def _matches(
    rows: Sequence[_Rows],
    images: Sequence[AnnotatedImage],
    contract: ModelContract,
    options: DetectionOptions,
) -> Matches:
    found = [find_objects(r.raw, r.way_back, contract, options, r.cells) for r in rows]
    return match(found, images)


def _by_class(matches: Matches, names: Sequence[str]) -> Iterator[tuple[str, Quality]]:
    for class_id, name in enumerate(names):
        best = _best(_curve(matches.of_class(class_id)))
        if best.f1:
            yield name, best


def _curve(matches: Matches) -> list[Quality]:
    return [_quality(matches, confidence) for confidence in CONFIDENCES]


def _quality(matches: Matches, confidence: float) -> Quality:
    counted = matches.scores >= confidence
    right, all_found = int((counted & matches.right).sum()), int(counted.sum())
    precision, recall = right / max(1, all_found), right / max(1, matches.objects)
    f1 = 2 * right / max(1, all_found + matches.objects)
    return Quality(confidence, f1, precision, recall)


def _best_f1(curve: Sequence[Quality]) -> float:
    return max(each.f1 for each in curve)


def _best(curve: Sequence[Quality]) -> Quality:
    """The middle of the first run of confidences with the best F1, which chance moves little."""
    values = [each.f1 for each in curve]
    first = last = values.index(max(values))
    while last + 1 < len(values) and values[last + 1] == values[first]:
        last += 1
    return curve[(first + last) // 2]
