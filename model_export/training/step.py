"""One training step: its learning rate, forward and backward pass, update, average of weights."""

import copy
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

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
        loss: The loss to minimise.
        optimizer: The optimizer of the network's parameters.
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of every step: warm-up, cosine, and a constant end (YOLOX, 2107.08430).

    Attributes:
        peak: The rate at the end of the warm-up.
        total_steps: Steps of the whole training.
        warmup_steps: Steps in which the rate rises from 0 to `peak`, with the square of the step.
        closing_steps: Last steps, without mosaic, at the lowest rate.
        floor_ratio: The lowest rate, as a share of `peak`.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    closing_steps: int = 0
    floor_ratio: float = 0.05

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps) ** 2
        floor = self.peak * self.floor_ratio
        falling = self.total_steps - self.warmup_steps - self.closing_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, falling))
        return floor + (self.peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """An exponential moving average of a model's weights, which detects better than the weights.

    Batch norm statistics are averaged like weights.

    Args:
        model: The model to follow; the average starts as its copy. From now on, both keep their
            tensors: what is loaded into them is copied there.
        decay: The share of the old average that a late update keeps.
        ramp: Early updates keep less: after this many, the share has reached 63 % of `decay`.

    Attributes:
        model: The average.
        updates: The number of updates.
    """

    def __init__(self, model: nn.Module, decay: float = 0.9998, ramp: int = 2000) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.updates = 0
        self._decay = decay
        self._ramp = ramp
        # Collected once: on a small network that takes longer than the arithmetic of an update.
        self._averages, self._counts = _tensors(self.model)
        self._values, self._current_counts = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model as it is now."""
        self.updates += 1
        keep = self._decay * (1 - math.exp(-self.updates / self._ramp))
        # All tensors in one call, which takes a tenth of the time of one call per tensor.
        move = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        move(self._averages, self._values, None)
        for count, current in zip(self._counts, self._current_counts, strict=True):
            count.copy_(current)


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The floats of a model, which are averaged, and its whole numbers, which are not."""
    tensors = [*model.parameters(), *model.buffers()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floats, [tensor for tensor in tensors if not tensor.is_floating_point()]


def sgd(
    model: nn.Module,
    *,
    rate: float,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    fused: bool = False,
) -> torch.optim.SGD:
    """YOLOX's optimizer: SGD with Nesterov momentum, and no decay of biases and norms.

    Args:
        model: The model; its parameters without a gradient are left out.
        rate: The learning rate.
        momentum: The share of the last step that the next one keeps.
        weight_decay: The decay of weights with several axes.
        fused: Whether to step by torch's fused kernel, which on a CPU takes a quarter of the time
            and gave the same to the bit where it was measured. Not with a gradient scaler: if the
            first step overflows and is skipped, torch 2.13 goes on with a momentum never set.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        # Biases and the parameters of norms have one axis.
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # All tensors in one call, either way.
    how = {"fused": True} if fused else {"foreach": True}
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True, **how)


def arithmetic(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that the network computes in; `auto` on a GPU is the best 16-bit type it has."""
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cpu":
        return torch.float32
    # Older GPUs only emulate bfloat16, which is slow.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16
