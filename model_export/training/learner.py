"""One optimizer step: forward, loss, backward, update."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_export.loss.loss import DetectionLoss
from model_export.training.config import Precision
from model_export.training.dataset import Batch
from model_export.training.meter import loss_tensor

DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """What the network computes in; `auto` is mixed on a GPU, in the best type that it knows."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cpu":
        return torch.float32
    # Older GPUs only emulate bfloat16, slowly.
    real = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if real else torch.float16


@dataclass(frozen=True, slots=True)
class Learner:
    """Moves a network's weights down the gradient of a batch.

    Attributes:
        network: In training mode; maybe wrapped for several processes.
        loss: What to minimise.
        optimizer: Of the network's parameters.
        scaler: Keeps small gradients alive in float16; switched off otherwise.
        dtype: What the network computes in.
        parts: In how many parts a batch is computed, to save memory.
    """

    network: nn.Module
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    parts: int = 1

    def step(self, batch: Batch, rate: float, *, closing: bool) -> Tensor:
        """Learn from a batch on the network's device.

        Args:
            batch: N images, N a multiple of `parts`.
            rate: The learning rate.
            closing: Whether augmentation is closed.

        Returns:
            `(6,)` float32, the mean losses of the parts in the order of `LossValues`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._gradients(batch, closing=closing)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return losses

    def _gradients(self, batch: Batch, *, closing: bool) -> Tensor:
        parts = list(batch.split(self.parts))
        values = []
        for number, part in enumerate(parts, start=1):
            with self._exchange(last=number == len(parts)):
                height, width = part.images.shape[2:]
                raw = self._forward(part.images)
                losses = self.loss(raw, part.targets, height, width, closing=closing)
                scaled = self.scaler.scale(losses.total / len(parts))
                torch.autograd.backward(scaled)
            values.append(loss_tensor(losses))
        return torch.stack(values).mean(0)

    def _forward(self, images: Tensor) -> Tensor:
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        mixed = self.dtype != torch.float32
        with torch.autocast(images.device.type, self.dtype, enabled=mixed):
            raw: Tensor = self.network(pixels)
        return raw

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients go to the other processes once a step, with the last part."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        exchange: AbstractContextManager[None] = self.network.no_sync()
        return exchange
