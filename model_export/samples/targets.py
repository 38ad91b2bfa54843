"""The ground truths of a batch, as tensors."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NO_OBJECT: Final = -1


class Targets(NamedTuple):
    """The ground truths of N images, padded to G per image, G at least 1.

    A named tuple, because a DataLoader pins the tensors of one by itself.

    Attributes:
        boxes_xyxy: `(N, G, 4)` float32, network pixels; zeros where padded.
        class_ids: `(N, G)` int64, `NO_OBJECT` where padded.
    """

    boxes_xyxy: Tensor
    class_ids: Tensor

    def to(self, device: torch.device) -> "Targets":
        """A copy on another device, made without waiting for it."""
        return Targets(*(values.to(device, non_blocking=True) for values in self))


def pad_targets(boxes_xyxy: Sequence[Tensor], class_ids: Sequence[Tensor]) -> Targets:
    """Put the ground truths of several images into one batch.

    Args:
        boxes_xyxy: Per image, `(G_i, 4)` float32, network pixels; G_i may be 0.
        class_ids: Per image, `(G_i,)` int64.

    Returns:
        Padded targets in the order given.
    """
    # An additional image of one padding row makes G at least 1: a reduction over no rows fails.
    spare_box, spare_id = torch.zeros(1, 4), torch.full((1,), NO_OBJECT)
    boxes = pad_sequence([spare_box, *boxes_xyxy], batch_first=True)
    ids = pad_sequence([spare_id, *class_ids], batch_first=True, padding_value=NO_OBJECT)
    return Targets(boxes[1:], ids[1:])
