"""SimOTA: which cells should have found which ground truth (YOLOX, 2107.08430, section 2.1).

All shapes follow from the shapes of the inputs, so that the host never waits for the device: rows
that do not count are masked, not removed. Pairs of ground truths and rows are compared a bounded
number at a time, whatever the number of ground truths, so that a crowded picture costs time but no
memory; the result does not depend on that number.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model_export.loss.boxes import (
    MAX_PAIRS,
    STRIDES,
    AllAnchors,
    Anchors,
    decode_boxes,
    iou,
    take_rows,
)
from model_export.loss.presets import CENTER_RADIUS
from model_export.samples.targets import NO_OBJECT, Targets
from service.core.contract import BoxCoding

MAX_PER_TRUTH: Final = 10
IOU_WEIGHT: Final = 3.0
OUTSIDE_PENALTY: Final = 1e6
# Bounds log(probability), as torch's binary cross-entropy on probabilities does.
MIN_LOG: Final = -100.0
SMALLEST_IOU: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Assignment:
    """The positives of N images, padded to P places each; every other row is negative.

    Attributes:
        rows: `(N, P)` int64, distinct rows of the raw output; ascending where positive.
        truth: `(N, P)` int64, index of the matched ground truth, `NO_OBJECT` where padded.
        ious: `(N, P)` float32, IoU of the predicted box with it, 0 where padded.
    """

    rows: Tensor
    truth: Tensor
    ious: Tensor

    @property
    def positive(self) -> Tensor:
        """`(N, P)` bool, False where padded."""
        return self.truth != NO_OBJECT


@torch.no_grad()
def assign(
    raw: Tensor,
    targets: Targets,
    anchors: AllAnchors,
    coding: BoxCoding,
    *,
    center_radius: float = CENTER_RADIUS,
) -> Assignment:
    """Match predictions with ground truths, as the released code does.

    Args:
        raw: `(N, A, 4 + 1 + C)` floats, the network's output.
        targets: The ground truths.
        anchors: All A anchors.
        coding: How raw values stand for a box.
        center_radius: Candidates lie less than this many strides from a ground truth's centre, in
            both directions.

    Returns:
        The positives; each is a candidate of some ground truth, nearly always of the one that it
        is matched with.
    """
    pairs_per_truth = raw.shape[0] * raw.shape[1]
    parts = _parts_of(targets, max(1, MAX_PAIRS // pairs_per_truth))
    truths = targets.class_ids.shape[1]
    near = _near_any(targets, anchors, center_radius)
    rows, real = _first_true(near, _max_candidates(truths, center_radius))
    chosen, chosen_anchors = take_rows(raw, rows).float(), anchors.take(rows)
    boxes = decode_boxes(chosen[..., :4], chosen_anchors, coding)
    candidates = _Candidates(boxes, _class_costs(chosen[..., 4:]), chosen_anchors, real)
    truth = _settle(_claims(candidates, part, center_radius) for part in parts)
    return _compact(rows, truth, boxes, targets)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The K rows of each image that ground truths choose from.

    Attributes:
        boxes_xyxy: `(N, K, 4)` float32, the predicted boxes.
        class_costs: `(N, C, K)` float32, see `_class_costs`.
        anchors: Their anchors.
        real: `(N, K)` bool, False where padded.
    """

    boxes_xyxy: Tensor
    class_costs: Tensor
    anchors: Anchors
    real: Tensor


@dataclass(frozen=True, slots=True)
class _Claims:
    """The choices of g ground truths of each image.

    Attributes:
        rows: `(N, g, M)` int64, the M cheapest of K candidates for each ground truth.
        claimed: `(N, g, M)` bool, whether it claims them.
        costs: `(N, K)` float32, the cost of each candidate for whom it is cheapest.
        cheapest_for: `(N, K)` int64, that ground truth, counted within these g.
    """

    rows: Tensor
    claimed: Tensor
    costs: Tensor
    cheapest_for: Tensor


def _parts_of(targets: Targets, size: int) -> list[Targets]:
    """The ground truths of all images, `size` of each image at a time."""
    starts = range(0, targets.class_ids.shape[1], size)
    return [Targets(*(values[:, at : at + size] for values in targets)) for at in starts]


def _near_any(targets: Targets, anchors: AllAnchors, center_radius: float) -> Tensor:
    """`(N, A)` bool: whether the anchor point is a candidate of any ground truth of the image.

    Columns and rows are compared apart, so that a pair costs as much as the sides of the levels,
    not as much as their areas.
    """
    centers_xy, masks = _centers(targets), []
    for stride, (height, width) in zip(STRIDES, anchors.sides, strict=True):
        near_x, near_y = (
            ((torch.arange(side, device=centers.device) + 0.5) * stride - centers[..., None]).abs_()
            < center_radius * stride
            for centers, side in zip(centers_xy, (width, height), strict=True)
        )
        # How many ground truths are near in both directions.
        counts = near_y.float().transpose(1, 2) @ near_x.float()
        masks.append(counts.flatten(1) > 0)
    return torch.cat(masks, dim=1)


def _inside(targets: Targets, anchors: Anchors, center_radius: float) -> Tensor:
    """`(N, G, K)` bool: whether the K anchor points of an image are candidates of its truths."""
    center_x, center_y = (centers[..., None] for centers in _centers(targets))
    point_x, point_y = anchors.points_xy().unsqueeze(-3).unbind(-1)
    reach = (center_radius * anchors.strides).unsqueeze(-2)
    return ((point_x - center_x).abs_() < reach) & ((point_y - center_y).abs_() < reach)


def _centers(targets: Targets) -> tuple[Tensor, Tensor]:
    """The coordinates of the ground truths' centres, x and y, each `(N, G)` float32."""
    centers = (targets.boxes_xyxy[..., :2] + targets.boxes_xyxy[..., 2:]) / 2
    # Padding lies infinitely far from every anchor point, so that no mask is needed.
    centers = centers.masked_fill((targets.class_ids == NO_OBJECT)[..., None], math.inf)
    center_x, center_y = centers.unbind(2)
    return center_x, center_y


def _max_candidates(truths: int, center_radius: float) -> int:
    """The maximum number of candidate rows in one image, known from shapes alone."""
    # An open interval of 2r strides holds at most ceil(2r) anchor points of a level.
    return truths * len(STRIDES) * math.ceil(2 * center_radius) ** 2


def _first_true(mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The columns where a `(N, X)` bool mask is True, in P = min(X, limit) places.

    Returns:
        `(N, P)` int64, distinct columns, first those that are True, ascending; and `(N, P)` bool,
        whether they are True.
    """
    columns = mask.shape[1]
    countdown = torch.arange(columns, 0, -1, device=mask.device)
    order, found = (mask * countdown).topk(min(columns, limit))
    return found, order > 0


def _class_costs(logits: Tensor) -> Tensor:
    """Cross-entropy of each prediction with each class being right, summed over the classes.

    Args:
        logits: `(N, K, 1 + C)` float32, objectness and classes.

    Returns:
        `(N, C, K)` float32.
    """
    probabilities = logits.sigmoid()
    joint = (probabilities[..., 1:] * probabilities[..., :1]).sqrt()
    log_yes = joint.log().clamp(min=MIN_LOG)
    log_no = (-joint).log1p().clamp(min=MIN_LOG)
    # The sums for two classes differ in these classes alone: sum the cost of all classes being
    # wrong once, then exchange the term of the right class.
    return (log_no - log_yes - log_no.sum(dim=2, keepdim=True)).transpose(1, 2)


def _claims(candidates: _Candidates, targets: Targets, center_radius: float) -> _Claims:
    """Let each ground truth claim its k cheapest predictions.

    As in the release, k is the sum of the ten best IoUs with candidates of *any* ground truth,
    rounded down, but at least 1.
    """
    real = candidates.real[:, None]
    ious = iou(targets.boxes_xyxy[:, :, None], candidates.boxes_xyxy[:, None]) * real
    cost = _cost(candidates, targets, ious, center_radius)
    limit = min(MAX_PER_TRUTH, cost.shape[2])
    k = ious.topk(limit).values.sum(dim=2).int().clamp(min=1)
    costs, rows = cost.topk(limit, largest=False)
    within_k = torch.arange(limit, device=cost.device) < k[..., None]
    is_truth = (targets.class_ids != NO_OBJECT)[..., None]
    return _Claims(rows, within_k & costs.isfinite() & is_truth, *cost.min(dim=1))


def _cost(candidates: _Candidates, targets: Targets, ious: Tensor, center_radius: float) -> Tensor:
    """The cost of each candidate for each ground truth, `(N, G, K)` float32; infinite if padded."""
    ids = targets.class_ids.clamp(min=0)[..., None].expand_as(ious)
    cost = candidates.class_costs.gather(1, ids)
    cost -= IOU_WEIGHT * (ious + SMALLEST_IOU).log()
    own = _inside(targets, candidates.anchors, center_radius)
    cost += torch.where(own, 0.0, OUTSIDE_PENALTY)
    return cost.masked_fill_(~candidates.real[:, None], math.inf)


def _settle(parts: Iterable[_Claims]) -> Tensor:
    """The ground truth of each candidate, `(N, K)` int64, `NO_OBJECT` where none claims it.

    A candidate that several claim goes to the cheapest ground truth of all, which, as in the
    release, need not be a claimant.
    """
    rows, claimed, cheapest_for = _joined(parts)
    where, claim = rows.flatten(1), claimed.flatten(1).long()
    truths = torch.arange(claimed.shape[1], device=claimed.device)
    claimant = truths[:, None].expand_as(claimed).flatten(1)
    none = torch.zeros_like(cheapest_for)
    claimants = none.scatter_add(1, where, claim)
    # A sum over the claimants; it is read only where there is one.
    only_claimant = none.scatter_add(1, where, claim * claimant)
    truth = torch.where(claimants > 1, cheapest_for, only_claimant)
    return truth.masked_fill(claimants == 0, NO_OBJECT)


def _joined(parts: Iterable[_Claims]) -> tuple[Tensor, Tensor, Tensor]:
    """The rows, the claimed and the cheapest of all ground truths, counted within all of them."""
    others = iter(parts)
    first = next(others)
    rows, claimed, counted = [first.rows], [first.claimed], first.rows.shape[1]
    costs, cheapest_for = first.costs, first.cheapest_for
    for part in others:
        rows.append(part.rows)
        claimed.append(part.claimed)
        cheaper = part.costs < costs
        costs = torch.where(cheaper, part.costs, costs)
        cheapest_for = torch.where(cheaper, part.cheapest_for + counted, cheapest_for)
        counted += part.rows.shape[1]
    return torch.cat(rows, dim=1), torch.cat(claimed, dim=1), cheapest_for


def _compact(rows: Tensor, truth: Tensor, boxes_xyxy: Tensor, targets: Targets) -> Assignment:
    """Keep the positives of `(N, K)` rows, given their boxes, `(N, K, 4)`."""
    limit = targets.class_ids.shape[1] * MAX_PER_TRUTH
    places, positive = _first_true(truth != NO_OBJECT, limit)
    kept = truth.gather(1, places)
    matched = take_rows(targets.boxes_xyxy, kept.clamp(min=0))
    ious = iou(matched, take_rows(boxes_xyxy, places)) * positive
    return Assignment(rows.gather(1, places), kept, ious)
