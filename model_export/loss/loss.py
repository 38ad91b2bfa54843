"""The detection loss, in the article's form and in that of the YOLOX release."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from model_export.loss.assign import Assignment, assign
from model_export.loss.boxes import (
    Anchors,
    anchors_on,
    decode_boxes,
    encode_boxes,
    giou,
    iou,
    largest_iou,
    take_rows,
)
from model_export.loss.presets import CENTER_RADIUS, PresetName
from model_export.samples.targets import NO_OBJECT, Targets
from service.core.contract import BoxCoding


@dataclass(frozen=True, slots=True)
class LossPreset:
    """The targets and weights of the parts of the loss.

    Attributes:
        class_target: The target of the matched class: 1, or the IoU with the matched ground truth.
        box_loss: 1 - GIoU, or 1 - IoU squared.
        objectness_target: `binary` is 1 for positives and 0 for negatives; `iou` is the IoU with
            the matched ground truth, and for negatives the largest IoU with any.
        closing_l1: Whether the closing epochs add an L1 loss on the raw box values.
        reg_weight: Weight of the box loss.
        class_weight: Weight of the class loss.
    """

    class_target: Literal["one_hot", "iou"]
    box_loss: Literal["giou", "iou"]
    objectness_target: Literal["binary", "iou"]
    closing_l1: bool
    reg_weight: float = 5.0
    class_weight: float = 1.0


ARTICLE: Final = LossPreset("one_hot", "giou", "iou", closing_l1=False)
YOLOX_RELEASE: Final = LossPreset("iou", "iou", "binary", closing_l1=True)
PRESETS: Final[dict[PresetName, LossPreset]] = {"article": ARTICLE, "yolox": YOLOX_RELEASE}


@dataclass(frozen=True, slots=True)
class LossParts:
    """Scalars, float32; the parts are weighted and add up to the total.

    Attributes:
        total: The loss to call `backward` on; the parts carry no gradient.
        box: Box loss.
        objectness: Objectness loss.
        classification: Class loss.
        l1: L1 loss, 0 unless it is on.
        positives_per_truth: Positives per ground truth of the batch.
    """

    total: Tensor
    box: Tensor
    objectness: Tensor
    classification: Tensor
    l1: Tensor
    positives_per_truth: Tensor

    def values(self) -> Tensor:
        """`(6,)` float32 without gradient, in the order of the attributes."""
        parts = self.box, self.objectness, self.classification, self.l1, self.positives_per_truth
        return torch.stack([self.total.detach(), *parts])


def at_least_one(positives: Tensor) -> Tensor:
    """The divisor of a single process: the number of positives, or 1 if there are none."""
    return positives.clamp(min=1)


@dataclass(frozen=True, slots=True)
class DetectionLoss:
    """Assigns predictions to ground truths, then compares them.

    Attributes:
        preset: The targets and weights of the parts.
        coding: How raw values stand for a box.
        center_radius: Reach of the candidates of a ground truth, in strides.
        divisor: Turns the `()` int64 number of positives into what the sums are divided by. Each
            of W processes returns max(1, positives of all) / W, so that the mean of their gradients
            is that of a single process.
        class_weights: `(C,)` float32, weights of the classes in the class loss; None for 1 each.
    """

    preset: LossPreset
    coding: BoxCoding = "yolox"
    center_radius: float = CENTER_RADIUS
    divisor: Callable[[Tensor], Tensor] = at_least_one
    class_weights: Tensor | None = None

    def __call__(
        self, raw: Tensor, targets: Targets, height: int, width: int, *, closing: bool = False
    ) -> LossParts:
        """Compare raw output with ground truths, in float32 even under autocast.

        Args:
            raw: `(N, A, 4 + 1 + C)` floats, the network's output.
            targets: The ground truths, on the same device; images may have none.
            height: The height of the network's input in pixels.
            width: Its width in pixels.
            closing: Whether the epoch is a closing one, in which the preset's L1 counts.

        Raises:
            ValueError: The output does not belong to an input of this size.
        """
        anchors = anchors_on(raw.device, height, width)
        if raw.shape[1] != len(anchors.strides):
            raise ValueError(
                f"{raw.shape[1]} raw rows, but {height}x{width} has {len(anchors.strides)} cells"
            )
        found = assign(raw, targets, anchors, self.coding, center_radius=self.center_radius)
        pairs = _pair(raw, targets, anchors, found)
        background = self._background(raw, targets, anchors)
        closing_l1 = closing and self.preset.closing_l1
        sums = (
            self.preset.reg_weight * _box_loss(pairs, self.coding, self.preset.box_loss),
            _objectness_loss(raw, found, background, self.preset.objectness_target),
            self.preset.class_weight
            * _class_loss(pairs, self.preset.class_target, self.class_weights),
            _l1_loss(pairs, self.coding) if closing_l1 else pairs.raw.new_zeros(()),
        )
        positives = found.positive.sum()
        truths = (targets.class_ids != NO_OBJECT).sum()
        return _parts(sums, self.divisor(positives), positives / truths.clamp(min=1))

    @torch.no_grad()
    def _background(self, raw: Tensor, targets: Targets, anchors: Anchors) -> Tensor:
        """The objectness that each row should have if it is negative, `(N, A)` float32."""
        if self.preset.objectness_target == "binary":
            return torch.zeros_like(raw[..., 4], dtype=torch.float32)
        boxes = decode_boxes(raw[..., :4].float(), anchors, self.coding)
        # Image by image: all pairs of a batch at once need N times the memory and no longer fit
        # the CPU's cache, which is several times slower at 60 objects per image.
        pairs = zip(targets.boxes_xyxy, boxes, strict=True)
        return torch.stack([largest_iou(image, truths) for truths, image in pairs])


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Predictions and the ground truths that they are matched with.

    Attributes:
        raw: `(N, P, 4 + 1 + C)` float32, with its gradient.
        anchors: The anchors of these P rows per image.
        boxes_xyxy: `(N, P, 4)` float32, the ground truth's box in network pixels.
        class_ids: `(N, P)` int64, the ground truth's class.
        ious: `(N, P)` float32, IoU of the two boxes, without gradient.
        positive: `(N, P)` bool; where False, the ground truth is meaningless.
    """

    raw: Tensor
    anchors: Anchors
    boxes_xyxy: Tensor
    class_ids: Tensor
    ious: Tensor
    positive: Tensor


def _pair(raw: Tensor, targets: Targets, anchors: Anchors, found: Assignment) -> _Pairs:
    truth = found.truth.clamp(min=0)
    return _Pairs(
        raw=take_rows(raw, found.rows).float(),
        anchors=anchors.take(found.rows),
        boxes_xyxy=take_rows(targets.boxes_xyxy, truth),
        class_ids=targets.class_ids.gather(1, truth).clamp(min=0),
        ious=found.ious,
        positive=found.positive,
    )


def _box_loss(pairs: _Pairs, coding: BoxCoding, kind: Literal["giou", "iou"]) -> Tensor:
    """1 - GIoU, or 1 - IoU squared, summed over the positives."""
    predicted = decode_boxes(pairs.raw[..., :4], pairs.anchors, coding)
    if kind == "giou":
        losses = 1 - giou(predicted, pairs.boxes_xyxy)
    else:
        losses = 1 - iou(predicted, pairs.boxes_xyxy).square()
    return (losses * pairs.positive).sum()


def _class_loss(
    pairs: _Pairs, kind: Literal["one_hot", "iou"], class_weights: Tensor | None
) -> Tensor:
    """The cross-entropy, summed over the positives, by the weight of their class, and all classes.

    The weights are `(C,)`.
    """
    logits = pairs.raw[..., 5:]
    hot = torch.ones_like(pairs.ious) if kind == "one_hot" else pairs.ious
    target = torch.zeros_like(logits).scatter(2, pairs.class_ids[..., None], hot[..., None])
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    counted = pairs.positive
    if class_weights is not None:
        counted = counted * class_weights[pairs.class_ids]
    return (losses * counted[..., None]).sum()


def _objectness_loss(
    raw: Tensor, found: Assignment, background: Tensor, kind: Literal["binary", "iou"]
) -> Tensor:
    """The cross-entropy, summed over all rows; the target of negatives is `background` `(N, A)`."""
    foreground = torch.ones_like(found.ious) if kind == "binary" else found.ious
    negatives = background.gather(1, found.rows)
    chosen = torch.where(found.positive, foreground, negatives)
    target = background.scatter(1, found.rows, chosen)
    logits = raw[..., 4].float()
    return functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def _l1_loss(pairs: _Pairs, coding: BoxCoding) -> Tensor:
    """The L1 distance of the raw box values, summed over the positives."""
    target = encode_boxes(pairs.boxes_xyxy, pairs.anchors, coding)
    distances = (pairs.raw[..., :4] - target).abs()
    return (distances * pairs.positive[..., None]).sum()


def _parts(
    sums: tuple[Tensor, Tensor, Tensor, Tensor], divisor: Tensor, positives_per_truth: Tensor
) -> LossParts:
    """Turn the sums of the box, objectness, class and L1 losses into means, and add these up."""
    means = torch.stack(sums) / divisor
    box, objectness, classification, l1 = means.detach().unbind()
    return LossParts(means.sum(), box, objectness, classification, l1, positives_per_truth)
