"""The top-down pyramid that the YOLOX release puts on Darknet-53 (FPN, 1612.03144)."""

import torch
from torch import Tensor, nn

from model_export.model.backbones.darknet53 import Darknet53
from model_export.model.blocks import LEAKY_RELU, ConvStyle


class FPN(nn.Module):
    """Images to three maps of 128, 256 and 512 channels, at strides 8, 16 and 32.

    Args:
        backbone: Darknet-53 with SPP; its maps have 256, 512 and 512 channels.
        style: Kind of convolution blocks.

    Attributes:
        out_channels: Channels of the three outputs.
    """

    def __init__(self, backbone: Darknet53, style: ConvStyle = LEAKY_RELU) -> None:
        super().__init__()
        c3, c4, c5 = backbone.out_channels
        self.backbone = backbone
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.out1_cbl = style.conv(c5, c5 // 2, 1)
        self.out1 = _embedding(c4 + c5 // 2, c4 // 2, style)
        self.out2_cbl = style.conv(c4 // 2, c3 // 2, 1)
        self.out2 = _embedding(c3 + c3 // 2, c3 // 2, style)
        self.out_channels = (c3 // 2, c4 // 2, c5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(N, 3, H, W)` to three maps of `out_channels`, at 1/8, 1/16 and 1/32 of the size."""
        dark3, dark4, dark5 = self.backbone(images)
        from_top = self.upsample(self.out1_cbl(dark5))
        middle = self.out1(torch.cat([from_top, dark4], dim=1))
        from_middle = self.upsample(self.out2_cbl(middle))
        fine = self.out2(torch.cat([from_middle, dark3], dim=1))
        return fine, middle, dark5


def _embedding(c_in: int, hidden: int, style: ConvStyle) -> nn.Sequential:
    """YOLOv3's five blocks, 1x1 and 3x3 in turn; the output has `hidden` channels."""
    return nn.Sequential(
        style.conv(c_in, hidden, 1),
        style.conv(hidden, 2 * hidden, 3),
        style.conv(2 * hidden, hidden, 1),
        style.conv(hidden, 2 * hidden, 3),
        style.conv(2 * hidden, hidden, 1),
    )
