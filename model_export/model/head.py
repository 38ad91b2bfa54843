"""The detection heads: feature maps to raw rows (YOLOX, 2107.08430, section 2.1)."""

import math
from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from model_export.model.blocks import SILU, ConvStyle

# Hardly any cell contains an object, so an initial score of 1 % keeps the first losses small
# (2107.08430 follows RetinaNet, 1708.02002, section 4.1).
PRIOR_PROBABILITY: Final = 0.01
# The first boxes are this many strides wide and high, so that SimOTA gives each object to the level
# for its size. First boxes of one stride would all be far too small: objects of every size would go
# to the coarsest level, whose boxes are the largest, and the others would learn to find nothing.
FIRST_BOX_STRIDES: Final = 4.0


class DecoupledHead(nn.Module):
    """Per level: a 1x1 stem, then a branch for the classes and one for box and objectness.

    Args:
        num_classes: C.
        in_channels: Channels of each level's map, in ascending stride.
        widths: Channels inside each level's branches; 256 for every level in YOLOX-L.
        style: Kind of convolution blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        widths: Sequence[int],
        style: ConvStyle = SILU,
    ) -> None:
        super().__init__()
        self.stems = nn.ModuleList(
            style.conv(c_in, width, 1) for c_in, width in zip(in_channels, widths, strict=True)
        )
        self.cls_convs = nn.ModuleList(_branch(width, style) for width in widths)
        self.reg_convs = nn.ModuleList(_branch(width, style) for width in widths)
        self.cls_preds = nn.ModuleList(_prediction(width, 0, num_classes) for width in widths)
        self.reg_preds = nn.ModuleList(_prediction(width, 4, 0) for width in widths)
        self.obj_preds = nn.ModuleList(_prediction(width, 0, 1) for width in widths)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """One `(N, C_in, H / s, W / s)` map per level to raw rows `(N, A, 4 + 1 + C)`."""
        return raw_rows([self._level(index, feature) for index, feature in enumerate(features)])

    def _level(self, index: int, feature: Tensor) -> Tensor:
        """One level's `(N, C_in, H / s, W / s)` to `(N, 4 + 1 + C, H / s, W / s)`."""
        stem = self.stems[index](feature)
        class_feature = self.cls_convs[index](stem)
        box_feature = self.reg_convs[index](stem)
        box = self.reg_preds[index](box_feature)
        objectness = self.obj_preds[index](box_feature)
        classes = self.cls_preds[index](class_feature)
        return torch.cat([box, objectness, classes], dim=1)


class CoupledHead(nn.Module):
    """Per level: a 3x3 block, then one 1x1 for box, objectness and classes (YOLOv3, 1804.02767).

    It exists to be compared with the decoupled head; there are no released weights for it.

    Args:
        num_classes: C.
        in_channels: Channels of each level's map, in ascending stride.
        widths: Channels between the two convolutions of each level.
        style: Kind of convolution blocks.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        widths: Sequence[int],
        style: ConvStyle = SILU,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            style.spatial(c_in, width) for c_in, width in zip(in_channels, widths, strict=True)
        )
        self.preds = nn.ModuleList(_prediction(width, 4, 1 + num_classes) for width in widths)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """One `(N, C_in, H / s, W / s)` map per level to raw rows `(N, A, 4 + 1 + C)`."""
        levels = zip(self.preds, self.convs, features, strict=True)
        return raw_rows([predict(conv(feature)) for predict, conv, feature in levels])


def raw_rows(levels: Sequence[Tensor]) -> Tensor:
    """Maps `(N, 4 + 1 + C, H / s, W / s)` to `(N, A, 4 + 1 + C)`: level by level, row by row."""
    return torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)


def centre_first_boxes(head: nn.Module, strides: Sequence[int]) -> None:
    """Put the first boxes of the coding `anchor_point` around their cells' centres.

    Its raw offsets lead from there to the top left corner, in pixels. Offsets of 0 would put every
    first box to the right of its cell and below, where it overlaps the cell's objects by a quarter.

    Args:
        head: A head that has just been made.
        strides: Pixels per cell of each level, ascending.
    """
    layers = head.preds if isinstance(head, CoupledHead) else head.reg_preds
    with torch.no_grad():
        for layer, stride in zip(cast("nn.ModuleList", layers), strides, strict=True):
            cast("Tensor", layer.bias)[:2] = -FIRST_BOX_STRIDES * stride / 2


def _branch(width: int, style: ConvStyle) -> nn.Sequential:
    return nn.Sequential(style.spatial(width, width), style.spatial(width, width))


def _prediction(width: int, boxes: int, scores: int) -> nn.Conv2d:
    """A 1x1 with 4 or 0 box values, biased to the first boxes, then logits, to the prior."""
    conv = nn.Conv2d(width, boxes + scores, 1)
    bias = torch.zeros(boxes + scores)
    bias[2:boxes] = math.log(FIRST_BOX_STRIDES)
    bias[boxes:] = math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY))
    conv.bias = nn.Parameter(bias)
    return conv
