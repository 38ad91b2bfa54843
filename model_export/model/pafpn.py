"""PAFPN, the neck of YOLOX nano to x: top-down, then bottom-up (PANet, 1803.01534)."""

import torch
from torch import Tensor, nn

from model_export.model.backbones.csp_darknet import CSPDarknet, CSPLayer
from model_export.model.blocks import SILU, ConvStyle


class PAFPN(nn.Module):
    """Images to three maps of the backbone's channels, at strides 8, 16 and 32.

    Args:
        backbone: Computes the three maps to mix.
        depth: Bottlenecks in each CSP layer; 3 in YOLOX-L.
        style: Kind of convolution blocks.

    Attributes:
        out_channels: Channels of the three outputs.
    """

    def __init__(self, backbone: CSPDarknet, depth: int, style: ConvStyle = SILU) -> None:
        super().__init__()
        c3, c4, c5 = self.out_channels = backbone.out_channels
        self.backbone = backbone
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.lateral_conv0 = style.conv(c5, c4, 1)
        self.C3_p4 = CSPLayer(2 * c4, c4, depth, style, shortcut=False)
        self.reduce_conv1 = style.conv(c4, c3, 1)
        self.C3_p3 = CSPLayer(2 * c3, c3, depth, style, shortcut=False)
        self.bu_conv2 = style.spatial(c3, c3, stride=2)
        self.C3_n3 = CSPLayer(2 * c3, c4, depth, style, shortcut=False)
        self.bu_conv1 = style.spatial(c4, c4, stride=2)
        self.C3_n4 = CSPLayer(2 * c4, c5, depth, style, shortcut=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(N, 3, H, W)` to three maps of `out_channels`, at 1/8, 1/16 and 1/32 of the size."""
        dark3, dark4, dark5 = self.backbone(images)
        top5 = self.lateral_conv0(dark5)
        top4 = self.reduce_conv1(self.C3_p4(torch.cat([self.upsample(top5), dark4], dim=1)))
        out3: Tensor = self.C3_p3(torch.cat([self.upsample(top4), dark3], dim=1))
        out4: Tensor = self.C3_n3(torch.cat([self.bu_conv2(out3), top4], dim=1))
        out5: Tensor = self.C3_n4(torch.cat([self.bu_conv1(out4), top5], dim=1))
        return out3, out4, out5
