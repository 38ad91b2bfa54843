"""Several processes that train one model together, as `torchrun` starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from model_export.errors import ModelExportError

# The others wait so long while the first process evaluates.
LONGEST_WAIT: Final = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a training; alone unless said otherwise.

    Attributes:
        process: Which one this is, from 0.
        processes: How many there are.
        device: What this process computes on.
    """

    device: torch.device
    process: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.process == 0

    def fair_divisor(self, positives: Tensor) -> Tensor:
        """The `divisor` of a `DetectionLoss`: at least 1, of all processes, for the mean of all."""
        if self.processes > 1:
            positives = positives.clone()
            distributed.all_reduce(positives)
        return positives.clamp(min=1) / self.processes

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes."""
        if self.processes > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values / self.processes

    def any(self, flag: bool) -> bool:
        """Whether one of the processes says so; on the CPU, so that no GPU is waited for."""
        if self.processes == 1:
            return flag
        count = torch.tensor(int(flag))
        distributed.all_reduce(count)
        return bool(count.item())

    def share(self, model: nn.Module) -> nn.Module:
        """A model that learns the same in each process: the mean gradient, joint batch norms."""
        if self.processes == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        else:
            _share_batch_norms(model)
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the other processes, if `torchrun` says that there are any.

    Args:
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.

    Raises:
        ModelExportError: There is no such device.
    """
    chosen = _device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield Team(chosen)
        return
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    try:
        yield Team(chosen, distributed.get_rank(), processes)
    finally:
        distributed.destroy_process_group()


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not available):
        return torch.device("cpu")
    if not available:
        raise ModelExportError("torch sees no GPU here; --device cpu trains without one")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise ModelExportError(
            f"torchrun started more processes than there are GPUs: {torch.cuda.device_count()}"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes; `torch.nn.SyncBatchNorm` is for GPUs alone.

    Every process must bring inputs of the same shape.

    Args:
        norm: What to take the parameters and the statistics of; they are shared, not copied.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """`(N, C, H, W)` to the same."""
        if not self.training:
            return super().forward(input)
        axes = (0, 2, 3)
        # Two passes: the difference of two large sums would lose digits.
        mean = _mean_of_all(input.mean(axes))
        centred = input - mean[:, None, None]
        variance = _mean_of_all(centred.square().mean(axes))
        self._remember(mean, variance, input.numel() // input.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics, with the unbiased variance as torch does."""
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        count *= distributed.get_world_size()
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _mean_of_all(values: Tensor) -> Tensor:
    """The mean over the processes, through which gradients flow back to all of them."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total / distributed.get_world_size()


def _share_batch_norms(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm(child))
