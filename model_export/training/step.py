"""One optimizer step: forward pass, loss, backward pass, update of the weights."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model_export.loss.loss import DetectionLoss
from model_export.samples.loader import Batch
from model_export.training.config import Precision

DTYPES: Final[dict[str, torch.dtype]] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Moves a network's weights down the gradient of a batch.

    Attributes:
        network: In training mode; wrapped if several processes train it.
        loss: What is minimised.
        optimizer: Of the network's parameters.
        scaler: Scales the loss so that small gradients survive in float16; otherwise disabled.
        dtype: The type that the network computes in.
        parts: In how many parts a batch is computed, to save memory.
    """

    network: nn.Module
    loss: DetectionLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    parts: int = 1

    def __call__(self, batch: Batch, rate: float, *, closing: bool) -> Tensor:
        """Learn from a batch on the network's device.

        Args:
            batch: N images, N a multiple of `parts`.
            rate: The learning rate.
            closing: Whether the epoch is a closing one.

        Returns:
            `(6,)` float32, `LossParts.values` averaged over the parts of the batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._accumulate_gradients(batch, closing=closing)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return losses

    def _accumulate_gradients(self, batch: Batch, *, closing: bool) -> Tensor:
        parts = list(batch.split(self.parts))
        values = []
        for number, part in enumerate(parts, start=1):
            with self._exchange(last=number == len(parts)):
                height, width = part.images.shape[2:]
                raw = self._forward(part.images)
                losses = self.loss(raw, part.targets, height, width, closing=closing)
                scaled = self.scaler.scale(losses.total / len(parts))
                torch.autograd.backward(scaled)
            values.append(losses.values())
        return torch.stack(values).mean(0)

    def _forward(self, images: Tensor) -> Tensor:
        """`(N, 3, H, W)` uint8 to raw rows `(N, A, 4 + 1 + C)`."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        mixed = self.dtype != torch.float32
        with torch.autocast(images.device.type, self.dtype, enabled=mixed):
            raw: Tensor = self.network(pixels)
        return raw

    def _exchange(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients once a step, during its last backward pass."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        exchange: AbstractContextManager[None] = self.network.no_sync()
        return exchange


def sgd(
    model: nn.Module, *, rate: float, momentum: float = 0.9, weight_decay: float = 5e-4
) -> torch.optim.SGD:
    """YOLOX's optimizer: SGD with Nesterov momentum, and no decay of biases and norms."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        # Biases and the parameters of norms have one axis.
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True, foreach=True)


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that the network computes in; `auto` on a GPU is the best 16-bit type it has."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cpu":
        return torch.float32
    # Older GPUs only emulate bfloat16, which is slow.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
