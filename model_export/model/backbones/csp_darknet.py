"""CSPDarknet, the backbone of YOLOX nano to x (2107.08430, after CSPNet, 1911.11929)."""

import torch
from torch import Tensor, nn

from model_export.model.blocks import SILU, ConvStyle, SpatialPyramidPooling


class Focus(nn.Module):
    """Turn each 2x2 square of pixels into one pixel with four times the channels; then a 3x3 block.

    `(N, C_in, H, W)` to `(N, C_out, H / 2, W / 2)`; H and W are even.
    """

    def __init__(self, c_in: int, c_out: int, style: ConvStyle) -> None:
        super().__init__()
        self.conv = style.conv(4 * c_in, c_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Stack the left column downwards, then the right one, as released weights expect."""
        left, right = x[..., ::2], x[..., 1::2]
        corners = [left[..., ::2, :], left[..., 1::2, :], right[..., ::2, :], right[..., 1::2, :]]
        mixed: Tensor = self.conv(torch.cat(corners, dim=1))
        return mixed


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 block, with or without a shortcut around both."""

    def __init__(self, channels: int, style: ConvStyle, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = style.conv(channels, channels, 1)
        self.conv2 = style.spatial(channels, channels)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape."""
        mixed: Tensor = self.conv2(self.conv1(x))
        return x + mixed if self.shortcut else mixed


class CSPLayer(nn.Module):
    """Half of the channels pass through bottlenecks, half bypass them; a 1x1 block joins both.

    `(N, C_in, H, W)` to `(N, C_out, H, W)`.
    """

    def __init__(
        self, c_in: int, c_out: int, depth: int, style: ConvStyle, *, shortcut: bool
    ) -> None:
        super().__init__()
        hidden = c_out // 2
        self.conv1 = style.conv(c_in, hidden, 1)
        self.conv2 = style.conv(c_in, hidden, 1)
        self.conv3 = style.conv(2 * hidden, c_out, 1)
        self.m = nn.Sequential(
            *(Bottleneck(hidden, style, shortcut=shortcut) for _ in range(depth))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Join the two paths."""
        joined: Tensor = self.conv3(torch.cat([self.m(self.conv1(x)), self.conv2(x)], dim=1))
        return joined


class CSPDarknet(nn.Module):
    """Images to the outputs of the last three stages, at strides 8, 16 and 32.

    Args:
        channels: Channels after the stem; each stage doubles them. 64 in YOLOX-L.
        depth: Bottlenecks in the first and last stage; the two stages between have three times as
            many. 3 in YOLOX-L.
        style: Kind of convolution blocks.

    Attributes:
        out_channels: Channels of the three outputs.
    """

    def __init__(self, channels: int, depth: int, style: ConvStyle = SILU) -> None:
        super().__init__()
        c2, c3, c4, c5 = (channels * factor for factor in (2, 4, 8, 16))
        self.stem = Focus(3, channels, style)
        self.dark2 = nn.Sequential(
            style.spatial(channels, c2, stride=2), CSPLayer(c2, c2, depth, style, shortcut=True)
        )
        self.dark3 = nn.Sequential(
            style.spatial(c2, c3, stride=2), CSPLayer(c3, c3, 3 * depth, style, shortcut=True)
        )
        self.dark4 = nn.Sequential(
            style.spatial(c3, c4, stride=2), CSPLayer(c4, c4, 3 * depth, style, shortcut=True)
        )
        self.dark5 = nn.Sequential(
            style.spatial(c4, c5, stride=2),
            SpatialPyramidPooling(c5, c5, style),
            CSPLayer(c5, c5, depth, style, shortcut=False),
        )
        self.out_channels = (c3, c4, c5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(N, 3, H, W)` to three maps of `out_channels`, at 1/8, 1/16 and 1/32 of the size."""
        dark3: Tensor = self.dark3(self.dark2(self.stem(images)))
        dark4: Tensor = self.dark4(dark3)
        dark5: Tensor = self.dark5(dark4)
        return dark3, dark4, dark5
