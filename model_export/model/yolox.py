"""The YOLOX model, and the variants by name (2107.08430)."""

from collections.abc import Callable

from torch import Tensor, nn

from model_export.model.backbones.csp_darknet import CSPDarknet
from model_export.model.backbones.darknet53 import Darknet53
from model_export.model.blocks import LEAKY_RELU, SILU, SILU_DEPTHWISE, ConvStyle
from model_export.model.fpn import FPN
from model_export.model.head import CoupledHead, DecoupledHead
from model_export.model.pafpn import PAFPN
from model_export.model.variants import HeadKind, Variant


class YOLOX(nn.Module):
    """Letterboxed images to raw rows.

    Args:
        backbone: Images to one map per level, in ascending stride.
        head: Maps to raw rows.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: `(N, 3, H, W)` float, BGR, 0-255; H and W are multiples of 32.

        Returns:
            `(N, A, 4 + 1 + C)`: four raw box values, the objectness logit and C class logits for
            each of the A cells, levels in ascending stride, cells row by row.
        """
        rows: Tensor = self.head(self.backbone(images))
        return rows


def build(variant: Variant, num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """Build a variant, untrained."""
    builders: dict[Variant, Callable[[int, HeadKind], YOLOX]] = {
        "pico": yolox_pico,
        "nano": yolox_nano,
        "micro": yolox_micro,
        "tiny": yolox_tiny,
        "s": yolox_s,
        "m": yolox_m,
        "l": yolox_l,
        "x": yolox_x,
        "darknet53": yolox_darknet53,
        "darknet53-article": yolox_darknet53_article,
    }
    return builders[variant](num_classes, head)


def yolox_pico(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """Half as wide as YOLOX-Nano, without depthwise convolutions; not in the YOLOX release.

    0.57 M parameters at 80 classes. On a CPU it trains in half of Nano's time, and inference takes
    0.8 of it.
    """
    return _with_pafpn(8, 1, num_classes, head)


def yolox_nano(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-Nano: 0.91 M parameters at 80 classes; the only one with depthwise convolutions."""
    return _with_pafpn(16, 1, num_classes, head, SILU_DEPTHWISE)


def yolox_micro(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """As wide as YOLOX-Nano, without depthwise convolutions; not in the YOLOX release.

    2.26 M parameters at 80 classes.
    """
    return _with_pafpn(16, 1, num_classes, head)


def yolox_tiny(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-Tiny: 5.06 M parameters at 80 classes."""
    return _with_pafpn(24, 1, num_classes, head)


def yolox_s(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-S: 8.97 M parameters at 80 classes."""
    return _with_pafpn(32, 1, num_classes, head)


def yolox_m(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-M: 25.3 M parameters at 80 classes."""
    return _with_pafpn(48, 2, num_classes, head)


def yolox_l(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-L: 54.2 M parameters at 80 classes."""
    return _with_pafpn(64, 3, num_classes, head)


def yolox_x(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-X: 99.1 M parameters at 80 classes."""
    return _with_pafpn(80, 4, num_classes, head)


def yolox_darknet53(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """YOLOX-Darknet53 as released, with SPP and FPN: 63.7 M parameters at 80 classes."""
    backbone = FPN(Darknet53(with_spp=True))
    # The release gives LeakyReLU to the head as well (its exps/default/yolov3.py: act="lrelu").
    return YOLOX(backbone, _head(head, num_classes, backbone.out_channels, 256, LEAKY_RELU))


def yolox_darknet53_article(num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """The article's model: the heads directly on Darknet-53, with neither SPP nor neck."""
    backbone = Darknet53()
    return YOLOX(backbone, _head(head, num_classes, backbone.out_channels, 256, LEAKY_RELU))


def _with_pafpn(
    channels: int, depth: int, num_classes: int, head: HeadKind, style: ConvStyle = SILU
) -> YOLOX:
    """The family on CSPDarknet: `channels` is 64 and `depth` 3 in YOLOX-L."""
    backbone = PAFPN(CSPDarknet(channels, depth, style), depth, style)
    return YOLOX(backbone, _head(head, num_classes, backbone.out_channels, 4 * channels, style))


def _head(
    kind: HeadKind, num_classes: int, in_channels: tuple[int, ...], width: int, style: ConvStyle
) -> nn.Module:
    """A head. A coupled head has twice each level's input channels, as in YOLOv3."""
    if kind == "coupled":
        return CoupledHead(num_classes, in_channels, [2 * c for c in in_channels], style)
    return DecoupledHead(num_classes, in_channels, [width] * len(in_channels), style)
