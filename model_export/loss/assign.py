"""SimOTA: which cells should have found which ground truth (YOLOX, 2107.08430, section 2.1).

All shapes follow from the shapes of the inputs, so that the host never waits for the device: rows
that do not count are masked, not removed.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model_export.loss.boxes import STRIDES, Anchors, decode_boxes, iou, take_rows
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
    anchors: Anchors,
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
    inside = _inside(targets, anchors, center_radius)
    rows, is_candidate = _first_true(inside.any(dim=1), _max_candidates(inside, center_radius))
    chosen = take_rows(raw, rows).float()
    boxes = decode_boxes(chosen[..., :4], anchors.take(rows), coding)
    ious = iou(targets.boxes_xyxy[:, :, None], boxes[:, None]) * is_candidate[:, None]
    cost = _class_cost(chosen[..., 4:], targets.class_ids)
    cost -= IOU_WEIGHT * (ious + SMALLEST_IOU).log()
    own = inside.gather(2, rows[:, None].expand_as(cost))
    cost += torch.where(own, 0.0, OUTSIDE_PENALTY)
    cost.masked_fill_(~is_candidate[:, None], math.inf)
    cheapest, claimed = _claims(cost, ious, targets.class_ids != NO_OBJECT)
    truth = _settle(cheapest, claimed, cost)
    return _compact(rows, truth, ious)


def _inside(targets: Targets, anchors: Anchors, center_radius: float) -> Tensor:
    """`(N, G, A)` bool: whether the anchor point is a candidate of the ground truth."""
    centers = (targets.boxes_xyxy[..., :2] + targets.boxes_xyxy[..., 2:]) / 2
    # Padding lies infinitely far from every anchor point, so that no mask is needed.
    centers = centers.masked_fill((targets.class_ids == NO_OBJECT)[..., None], math.inf)
    center_x, center_y = centers[..., None].unbind(2)
    point_x, point_y = anchors.points_xy().unbind(-1)
    reach = center_radius * anchors.strides
    return ((point_x - center_x).abs_() < reach) & ((point_y - center_y).abs_() < reach)


def _max_candidates(inside: Tensor, center_radius: float) -> int:
    """The maximum number of candidate rows in one image, known from shapes alone."""
    # An open interval of 2r strides holds at most ceil(2r) anchor points of a level.
    return inside.shape[1] * len(STRIDES) * math.ceil(2 * center_radius) ** 2


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


def _class_cost(logits: Tensor, class_ids: Tensor) -> Tensor:
    """Cross-entropy of each prediction with each ground truth, summed over the classes.

    Args:
        logits: `(N, K, 1 + C)` float32, objectness and classes.
        class_ids: `(N, G)` int64.

    Returns:
        `(N, G, K)` float32.
    """
    probabilities = logits.sigmoid()
    joint = (probabilities[..., 1:] * probabilities[..., :1]).sqrt()
    log_yes = joint.log().clamp(min=MIN_LOG)
    log_no = (-joint).log1p().clamp(min=MIN_LOG)
    # The sums for two ground truths differ in their classes alone: sum the cost of all classes
    # being wrong once, then exchange the term of the ground truth's class.
    exchanged = (log_no - log_yes - log_no.sum(dim=2, keepdim=True)).transpose(1, 2)
    ids = class_ids.clamp(min=0)[..., None].expand(-1, -1, logits.shape[1])
    return exchanged.gather(1, ids)


def _claims(cost: Tensor, ious: Tensor, is_truth: Tensor) -> tuple[Tensor, Tensor]:
    """Let each ground truth claim its k cheapest predictions.

    As in the release, k is the sum of the ten best IoUs with candidates of *any* ground truth,
    rounded down, but at least 1.

    Returns:
        `(N, G, M)` int64, the M cheapest of K predictions; and `(N, G, M)` bool, whether they are
        claimed.
    """
    limit = min(MAX_PER_TRUTH, cost.shape[2])
    k = ious.topk(limit).values.sum(dim=2).int().clamp(min=1)
    costs, cheapest = cost.topk(limit, largest=False)
    within_k = torch.arange(limit, device=cost.device) < k[..., None]
    return cheapest, within_k & costs.isfinite() & is_truth[..., None]


def _settle(cheapest: Tensor, claimed: Tensor, cost: Tensor) -> Tensor:
    """The ground truth of each prediction, `(N, K)` int64, `NO_OBJECT` where none claims it.

    A prediction that several claim goes to the cheapest ground truth of all, which, as in the
    release, need not be a claimant.
    """
    where, claim = cheapest.flatten(1), claimed.flatten(1).long()
    truths = torch.arange(claimed.shape[1], device=cost.device)
    claimant = truths[:, None].expand_as(claimed).flatten(1)
    none = torch.zeros_like(cost[:, 0], dtype=torch.int64)
    claimants = none.scatter_add(1, where, claim)
    # A sum over the claimants; it is read only where there is one.
    only_claimant = none.scatter_add(1, where, claim * claimant)
    truth = torch.where(claimants > 1, cost.min(dim=1).indices, only_claimant)
    return truth.masked_fill(claimants == 0, NO_OBJECT)


def _compact(rows: Tensor, truth: Tensor, ious: Tensor) -> Assignment:
    """Keep the positives of `(N, K)` rows, given all `(N, G, K)` IoUs."""
    limit = ious.shape[1] * MAX_PER_TRUTH
    places, positive = _first_true(truth != NO_OBJECT, limit)
    kept = truth.gather(1, places)
    matched = ious.gather(1, truth.clamp(min=0)[:, None])[:, 0]
    return Assignment(rows.gather(1, places), kept, matched.gather(1, places) * positive)
