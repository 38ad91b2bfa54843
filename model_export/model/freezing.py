"""Freezing: parts of a network that keep the weights and statistics they start from."""

from collections.abc import Iterator

from torch import nn

from model_export.model.variants import ALL_BUT_HEAD
from model_export.model.yolox import YOLOX

STAGES = ("stem", "dark2", "dark3", "dark4", "dark5")


class FrozenBatchNorm(nn.BatchNorm2d):
    """A batch norm that always uses its statistics, and never changes them.

    Args:
        norm: The batch norm whose parameters and statistics it uses; they are shared, not copied.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        """Stay in evaluation mode."""
        del mode
        return super().train(mode=False)

    def reset_running_stats(self) -> None:
        """Keep the statistics."""


def freeze(model: YOLOX, stages: int) -> None:
    """Freeze the first stages of a model, which then learn nothing, in whatever mode it is.

    Args:
        model: With the weights to keep.
        stages: How many of the backbone's five stages; 6 freezes the neck, too.
    """
    for part in _parts(model, stages):
        part.requires_grad_(requires_grad=False)
        for module in list(part.modules()):
            for name, child in module.named_children():
                if type(child) is nn.BatchNorm2d:
                    setattr(module, name, FrozenBatchNorm(child))


def _parts(model: YOLOX, stages: int) -> Iterator[nn.Module]:
    if stages == ALL_BUT_HEAD:
        yield model.backbone
        return
    # The article's model has no neck around its backbone.
    backbone = getattr(model.backbone, "backbone", model.backbone)
    for name in STAGES[:stages]:
        yield getattr(backbone, name)
