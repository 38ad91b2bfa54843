"""Boxes as tensors: raw values to corners and back, and overlaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from service.core.contract import BoxCoding
from service.core.decode import MAX_LOG_SIZE, MAX_OFFSET, anchor_grid

STRIDES: Final = (8, 16, 32)
# Pairs of boxes that are compared at once, so that crowded pictures cost time but no memory: 16 MiB
# for each float of a pair. Most batches have fewer in all.
MAX_PAIRS: Final = 2**22
# Keeps division by an empty area finite; far below any area in pixels.
SMALLEST_AREA: Final = 1e-16
# Keeps the logarithm of an empty side finite; the release's value.
SMALLEST_SIDE: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Anchors:
    """The rows of a `service.core.decode.AnchorGrid`, or some of them, as tensors.

    Attributes:
        cells_ij: `(..., 2)` float32, column and row of each cell in its level.
        strides: `(...,)` float32, pixels per cell.
    """

    cells_ij: Tensor
    strides: Tensor

    def points_xy(self) -> Tensor:
        """`(..., 2)` float32: the centres of the cells in network pixels."""
        return (self.cells_ij + 0.5) * self.strides[..., None]

    def take(self, rows: Tensor) -> "Anchors":
        """The anchors of `(N, K)` int64 rows, with these two dimensions in front."""
        return Anchors(self.cells_ij[rows], self.strides[rows])


@dataclass(frozen=True, slots=True)
class AllAnchors(Anchors):
    """The A anchors of an input size, level after level, each row by row.

    Attributes:
        sides: Height and width of each level in cells.
    """

    sides: tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def anchors_on(device: torch.device, height: int, width: int) -> AllAnchors:
    """The A anchors of a network size in pixels; callers share them and must not write to them."""
    grid = anchor_grid(height, width, STRIDES)
    sides = tuple((height // stride, width // stride) for stride in STRIDES)
    # Tensors made in inference mode could not take part in a later training step.
    with torch.inference_mode(mode=False):
        cells_ij = torch.tensor(grid.cells_ij, device=device)
        return AllAnchors(cells_ij, torch.tensor(grid.strides, device=device), sides)


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The `(N, K)` int64 rows of `(N, A, D)` values: `(N, K, D)`."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[2]))


def decode_boxes(raw_boxes: Tensor, anchors: Anchors, coding: BoxCoding) -> Tensor:
    """`service.core.decode.decode_boxes`, differentiable.

    Args:
        raw_boxes: `(..., 4)` float32, the four raw values of each row.
        anchors: The anchor of each row.
        coding: How raw values stand for a box.

    Returns:
        `(..., 4)` float32, x1, y1, x2, y2 in network pixels.
    """
    step = anchors.strides[..., None]
    raw_offsets, log_sizes = raw_boxes.chunk(2, dim=-1)
    offsets = raw_offsets.clamp(-MAX_OFFSET, MAX_OFFSET)
    sizes = step * log_sizes.clamp(max=MAX_LOG_SIZE).exp()
    if coding == "yolox":
        top_left = (offsets + anchors.cells_ij) * step - sizes / 2
    else:
        top_left = offsets + anchors.points_xy()
    return torch.cat([top_left, top_left + sizes], dim=-1)


def encode_boxes(boxes_xyxy: Tensor, anchors: Anchors, coding: BoxCoding) -> Tensor:
    """The raw values that decode to these boxes.

    Args:
        boxes_xyxy: `(..., 4)` float32, network pixels.
        anchors: The anchor of each row.
        coding: How raw values stand for a box.

    Returns:
        `(..., 4)` float32; finite for boxes without area too.
    """
    step = anchors.strides[..., None]
    top_left, bottom_right = boxes_xyxy.chunk(2, dim=-1)
    if coding == "yolox":
        offsets = (top_left + bottom_right) / 2 / step - anchors.cells_ij
    else:
        offsets = top_left - anchors.points_xy()
    log_sizes = ((bottom_right - top_left) / step + SMALLEST_SIDE).log()
    return torch.cat([offsets, log_sizes], dim=-1)


def iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Intersection over union of `(..., 4)` boxes that broadcast; `(...)`, 0 to 1."""
    first, second = _planes(first_xyxy), _planes(second_xyxy)
    intersection, union = _intersection_and_union(first, second)
    return intersection / (union + SMALLEST_AREA)


def largest_iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """The largest IoU of each of `(A, 4)` boxes with any of `(G, 4)` others; `(A,)`."""
    size = max(1, MAX_PAIRS // len(boxes_xyxy))
    parts = [others_xyxy[at : at + size, None] for at in range(0, len(others_xyxy), size)]
    return torch.stack([iou(part, boxes_xyxy).amax(dim=0) for part in parts]).amax(dim=0)


def giou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Generalised IoU (1902.09630) of `(..., 4)` boxes that broadcast; `(...)`, -1 to 1."""
    first, second = _planes(first_xyxy), _planes(second_xyxy)
    intersection, union = _intersection_and_union(first, second)
    lower = [torch.minimum(*pair) for pair in zip(first[:2], second[:2], strict=True)]
    upper = [torch.maximum(*pair) for pair in zip(first[2:], second[2:], strict=True)]
    hull = _area(lower + upper)
    gap = (hull - union) / (hull + SMALLEST_AREA)
    return intersection / (union + SMALLEST_AREA) - gap


def _planes(boxes_xyxy: Tensor) -> tuple[Tensor, ...]:
    """x1, y1, x2, y2, each contiguous: reading with a stride of four is slow."""
    return boxes_xyxy.movedim(-1, 0).contiguous().unbind()


def _intersection_and_union(
    first: Sequence[Tensor], second: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The intersection and the union of two boxes, each as x1, y1, x2, y2."""
    lower = [torch.maximum(*pair) for pair in zip(first[:2], second[:2], strict=True)]
    upper = [torch.minimum(*pair) for pair in zip(first[2:], second[2:], strict=True)]
    intersection = _area(lower + upper)
    return intersection, _area(first) + _area(second) - intersection


def _area(corners: Sequence[Tensor]) -> Tensor:
    """Area in pixels squared; 0 if the corners are the wrong way round."""
    left, top, right, bottom = corners
    return (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
