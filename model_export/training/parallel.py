"""Several processes that train one model together, as `torchrun` starts them."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DistributedDataParallel

from model_export.errors import ModelExportError

# The other processes wait at most this long while the leader measures.
MAX_WAIT: Final = timedelta(hours=2)
OTHER_ENDED: Final = "another process of this training ended before it"


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of a training, as one of them sees it; by default it is alone.

    Attributes:
        device: The device that this process computes on.
        process: Which process this is, from 0.
        processes: How many there are.
    """

    device: torch.device
    process: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.process == 0

    def fair_divisor(self, positives: Tensor) -> Tensor:
        """The `divisor` of a `DetectionLoss`: max(1, positives of all processes) / processes."""
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
        """Whether the flag is set in any process; on the CPU, so that nothing waits for a GPU."""
        if self.processes == 1:
            return flag
        count = torch.tensor(int(flag))
        distributed.all_reduce(count)
        return bool(count.item())

    def smallest(self, number: int) -> int:
        """The smallest of the numbers that the processes have."""
        if self.processes == 1:
            return number
        lowest = torch.tensor(number)
        distributed.all_reduce(lowest, distributed.ReduceOp.MIN)
        return int(lowest.item())

    def share(self, model: nn.Module) -> nn.Module:
        """Make a model learn the same in every process: by mean gradients and joint batch norms."""
        if self.processes == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        else:
            _share_batch_norms(model)
        devices = [self.device] if self.device.type == "cuda" else None
        shared = DistributedDataParallel(model, device_ids=devices)
        # Joint batch norms have the same statistics in every process. Passing this as an argument
        # warns in new releases of torch, and old ones lack the argument that replaces it.
        shared.broadcast_buffers = False
        return shared


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the other processes, if `torchrun` started any, and leave together with them.

    Args:
        device: `cpu`, `cuda`, or `auto`, which takes a GPU if there is one.

    Raises:
        ModelExportError: There is no such device, or another process failed.
    """
    chosen = _device(device)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield Team(chosen)
        return
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=MAX_WAIT)
    except RuntimeError as error:
        raise ModelExportError(f"the processes did not find one another: {error}") from error
    try:
        yield (members := Team(chosen, distributed.get_rank(), processes))
        # As soon as one process of a stopped training exits, torchrun kills the others, and the
        # leader may still be saving: all wait for each other here. A process that failed has
        # reported its own error, so that theirs about it is dropped.
        with suppress(RuntimeError):
            members.any(flag=False)
    except RuntimeError as error:
        # gloo's errors have no class of their own.
        if "gloo" not in str(error) and not isinstance(error, distributed.DistError):
            raise
        raise ModelExportError(OTHER_ENDED) from error
    finally:
        distributed.destroy_process_group()
        # Models in reference cycles still hold parts of the group. Collect them now: gloo threads
        # that outlive the interpreter abort the process (pytorch/pytorch, issue 190489).
        gc.collect()


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
    """Batch norm over the batches of all processes, on CPUs: `torch.nn.SyncBatchNorm` needs GPUs.

    Every process must bring inputs of the same shape.

    Args:
        norm: The batch norm whose parameters and statistics it uses; they are shared, not copied.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            self.register_buffer(name, buffer)
        self.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """`(N, C, H, W)` to the same; statistics are computed in the type of the parameters."""
        if not self.training:
            return super().forward(input)
        axes = (0, 2, 3)
        values = input.to(self.weight.dtype)
        # Two passes, because the difference of two large sums would lose digits.
        mean = _mean_of_all(values.mean(axes))
        centred = values - mean[:, None, None]
        variance = _mean_of_all(centred.square().mean(axes))
        self._remember(mean, variance, input.numel() // input.shape[1])
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

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


class _MeanOfAll(torch.autograd.Function):
    """The mean of each value over the processes; gradients flow back to all of them."""

    @staticmethod
    def forward(_context: FunctionCtx, values: Tensor) -> Tensor:
        """Same shape."""
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(_context: FunctionCtx, gradient: Tensor) -> Tensor:
        """A value is part of the mean in every process: its gradient is the mean of theirs."""
        return _MeanOfAll.forward(_context, gradient)


def _mean_of_all(values: Tensor) -> Tensor:
    mean: Tensor = _MeanOfAll.apply(values)  # type: ignore[no-untyped-call]
    return mean


def _share_batch_norms(model: nn.Module) -> None:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SharedBatchNorm(child))
