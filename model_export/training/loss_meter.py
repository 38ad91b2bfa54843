"""Mean losses and elapsed time, between two readings."""

import time
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from model_export.report.events import LossValues
from model_export.training.parallel import Team

# The values of `LossParts`.
PARTS: Final = 6


def _zeros() -> Tensor:
    return torch.zeros(PARTS)


@dataclass(frozen=True, slots=True)
class Reading:
    """The state of a meter, to go on from in another process.

    Attributes:
        steps: The number of steps that were counted.
        seconds: The time that they took.
        sums: `(6,)` float32 on the CPU, the sums of `LossParts.values`, a mean over the processes.
    """

    steps: int = 0
    seconds: float = 0.0
    sums: Tensor = field(default_factory=_zeros)


class LossMeter:
    """Means of the losses since a start; sums stay on the device until they are read.

    Args:
        team: The processes whose losses are averaged.
        begun: The steps that another process counted before.
    """

    def __init__(self, team: Team, begun: Reading | None = None) -> None:
        self._team = team
        self._begin(begun or Reading())

    def restart(self) -> None:
        """Forget the losses, and restart the clock."""
        self._begin(Reading())

    def add(self, values: Tensor) -> None:
        """Count a step, given `LossParts.values`."""
        self.steps += 1
        self._sums += values

    def losses(self) -> LossValues:
        """The means since the start; every process has to call this."""
        return LossValues(*self._team.mean(self._sums / max(1, self.steps)).tolist())

    def seconds(self) -> float:
        """The time since the start; on a GPU, call `losses` first, which waits for it."""
        return self._before + time.perf_counter() - self._started

    def reading(self) -> Reading:
        """All that was counted; every process has to call this."""
        sums = self._team.mean(self._sums).cpu()
        return Reading(self.steps, self.seconds(), sums)

    def _begin(self, begun: Reading) -> None:
        self.steps = begun.steps
        self._sums = begun.sums.to(self._team.device, copy=True)
        self._before = begun.seconds
        self._started = time.perf_counter()
