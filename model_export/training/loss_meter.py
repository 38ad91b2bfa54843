"""Mean losses and elapsed time, between two readings."""

import time

import torch
from torch import Tensor

from model_export.report.events import LossValues
from model_export.training.parallel import Team


class LossMeter:
    """Means of the losses since a start; sums stay on the device until they are read.

    Args:
        team: The processes whose losses are averaged.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self.restart()

    def restart(self) -> None:
        """Forget the losses, and start the clock anew."""
        self.steps = 0
        self._sums = torch.zeros(6, device=self._team.device)
        self._started = time.perf_counter()

    def add(self, values: Tensor) -> None:
        """Count a step, given `LossParts.values`."""
        self.steps += 1
        self._sums += values

    def losses(self) -> LossValues:
        """The means since the start; every process has to call this."""
        return LossValues(*self._team.mean(self._sums / max(1, self.steps)).tolist())

    def seconds(self) -> float:
        """The time since the start; on a GPU, call `losses` first, which waits for it."""
        return time.perf_counter() - self._started
