"""Darknet-53, the backbone of YOLOv3 (1804.02767, table 1)."""

from typing import Final

from torch import Tensor, nn

from model_export.model.blocks import LEAKY_RELU, ConvBlock, ConvStyle, SpatialPyramidPooling

STAGE_BLOCKS: Final = (1, 2, 8, 8, 4)


class Residual(nn.Module):
    """Halve the channels with a 1x1, restore them with a 3x3, add the input."""

    def __init__(self, channels: int, style: ConvStyle) -> None:
        super().__init__()
        self.layer1 = style.conv(channels, channels // 2, 1)
        self.layer2 = style.conv(channels // 2, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape."""
        summed: Tensor = x + self.layer2(self.layer1(x))
        return summed


class Darknet53(nn.Module):
    """Images to the outputs of the last three stages, at strides 8, 16 and 32.

    Args:
        with_spp: Append the YOLOX release's extra convolutions and SPP to the last stage, which
            reduces it to 512 channels. False gives the network of YOLOv3 and of the YOLOX article.
        style: Kind of convolution blocks.

    Attributes:
        out_channels: Channels of the three outputs.
    """

    def __init__(self, *, with_spp: bool = False, style: ConvStyle = LEAKY_RELU) -> None:
        super().__init__()
        first, second, third, fourth, fifth = STAGE_BLOCKS
        self.stem = nn.Sequential(style.conv(3, 32, 3), *_stage(32, first, style))
        self.dark2 = nn.Sequential(*_stage(64, second, style))
        self.dark3 = nn.Sequential(*_stage(128, third, style))
        self.dark4 = nn.Sequential(*_stage(256, fourth, style))
        tail = _spp_tail(1024, style) if with_spp else []
        self.dark5 = nn.Sequential(*_stage(512, fifth, style), *tail)
        self.out_channels = (256, 512, 512 if with_spp else 1024)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`(N, 3, H, W)` to three maps of `out_channels`, at 1/8, 1/16 and 1/32 of the size."""
        dark3: Tensor = self.dark3(self.dark2(self.stem(images)))
        dark4: Tensor = self.dark4(dark3)
        dark5: Tensor = self.dark5(dark4)
        return dark3, dark4, dark5


def _stage(c_in: int, blocks: int, style: ConvStyle) -> list[nn.Module]:
    """A block that halves the size and doubles the channels, then `blocks` residual blocks."""
    c_out = 2 * c_in
    downsample = style.conv(c_in, c_out, 3, stride=2)
    return [downsample, *(Residual(c_out, style) for _ in range(blocks))]


def _spp_tail(channels: int, style: ConvStyle) -> list[nn.Module]:
    """SPP between two pairs of blocks; the output has half of the channels."""
    half = channels // 2
    return [
        *_squeeze_expand(channels, half, style),
        SpatialPyramidPooling(channels, half, style),
        *reversed(_squeeze_expand(channels, half, style)),
    ]


def _squeeze_expand(channels: int, hidden: int, style: ConvStyle) -> list[ConvBlock]:
    """YOLOv3's pair: a 1x1 down to `hidden` channels, a 3x3 up to `channels`."""
    return [style.conv(channels, hidden, 1), style.conv(hidden, channels, 3)]
