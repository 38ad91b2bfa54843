"""The convolution blocks that every network here is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

BATCH_NORM_EPSILON: Final = 1e-3
BATCH_NORM_MOMENTUM: Final = 0.03


def leaky_relu() -> nn.Module:
    """LeakyReLU with Darknet's slope of 0.1 (YOLOv3, 1804.02767)."""
    return nn.LeakyReLU(0.1)


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, activation; odd kernels keep the size at stride 1.

    `(N, C_in, H, W)` to `(N, C_out, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.bn: nn.Module = nn.BatchNorm2d(
            conv.out_channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM
        )
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Apply convolution, batch norm and activation."""
        activated: Tensor = self.act(self.bn(self.conv(x)))
        return activated


class DepthwiseSeparable(nn.Module):
    """A depthwise convolution, then a 1x1 across channels (MobileNets, 1704.04861)."""

    def __init__(self, depthwise: ConvBlock, pointwise: ConvBlock) -> None:
        super().__init__()
        self.dconv = depthwise
        self.pconv = pointwise

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C_in, H, W)` to `(N, C_out, ceil(H / stride), ceil(W / stride))`."""
        mixed: Tensor = self.pconv(self.dconv(x))
        return mixed


@dataclass(frozen=True, slots=True)
class ConvStyle:
    """The kind of convolution block that a network uses.

    Attributes:
        activation: Makes the activation that follows each batch norm.
        depthwise: Whether `spatial` makes depthwise separable blocks.
    """

    activation: Callable[[], nn.Module] = nn.SiLU
    depthwise: bool = False

    def conv(
        self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> ConvBlock:
        """A plain convolution block."""
        padding = (kernel - 1) // 2
        conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        return ConvBlock(conv, self.activation())

    def spatial(self, c_in: int, c_out: int, *, stride: int = 1) -> nn.Module:
        """A 3x3 block, depthwise separable if the style is."""
        if not self.depthwise:
            return self.conv(c_in, c_out, 3, stride=stride)
        return DepthwiseSeparable(
            self.conv(c_in, c_in, 3, stride=stride, groups=c_in), self.conv(c_in, c_out, 1)
        )


SILU: Final = ConvStyle()
SILU_DEPTHWISE: Final = ConvStyle(depthwise=True)
LEAKY_RELU: Final = ConvStyle(activation=leaky_relu)


class SpatialPyramidPooling(nn.Module):
    """Join the input with its 5x5, 9x9 and 13x13 maxima, between two 1x1 blocks (YOLOv3-SPP).

    `(N, C_in, H, W)` to `(N, C_out, H, W)`.
    """

    def __init__(self, c_in: int, c_out: int, style: ConvStyle) -> None:
        super().__init__()
        hidden = c_in // 2
        self.conv1 = style.conv(c_in, hidden, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.conv2 = style.conv(4 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pool three times in a row: a 5x5 maximum of 5x5 maxima is the 9x9 one, and so on."""
        x = self.conv1(x)
        max5 = self.pool(x)
        max9 = self.pool(max5)
        max13 = self.pool(max9)
        mixed: Tensor = self.conv2(torch.cat([x, max5, max9, max13], dim=1))
        return mixed
