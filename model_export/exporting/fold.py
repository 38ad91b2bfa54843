"""Fold a trained model for inference: the same function in fewer layers."""

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model_export.model.backbones.csp_darknet import Focus
from model_export.model.blocks import ConvBlock
from model_export.model.yolox import YOLOX


def folded(model: YOLOX) -> YOLOX:
    """A copy in evaluation mode, with its batch norms and Focus folded into convolutions."""
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, ConvBlock):
            _fold_batch_norm(module)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Focus):
                setattr(module, name, _as_one_block(child))
    return model


def _fold_batch_norm(block: ConvBlock) -> None:
    if isinstance(block.bn, nn.BatchNorm2d):
        block.conv = fuse_conv_bn_eval(block.conv, block.bn)
        block.bn = nn.Identity()


def _as_one_block(focus: Focus) -> ConvBlock:
    """Replace Focus and its 3x3 convolution by one 6x6 convolution of stride 2 on the pixels."""
    block, conv = focus.conv, focus.conv.conv
    c_out, c_in = conv.out_channels, conv.in_channels // 4
    # The input channels of the 3x3 are (corner column, corner row, channel). The row of a weight in
    # the 6x6 is (row in the 3x3, corner row), and its column likewise.
    corners = conv.weight.detach().reshape(c_out, 2, 2, c_in, 3, 3)
    kernel = corners.permute(0, 3, 4, 2, 5, 1).reshape(c_out, c_in, 6, 6)
    whole = nn.Conv2d(c_in, c_out, 6, stride=2, padding=2)
    whole.weight, whole.bias = nn.Parameter(kernel), conv.bias
    block.conv = whole
    return block
