"""What a training has done since one last looked."""

import time

import torch
from torch import Tensor

from model_export.loss.loss import LossParts
from model_export.report.events import LossValues
from model_export.training.parallel import Team


class Meter:
    """Means of the losses, and time; the numbers stay on the device until they are read.

    Args:
        team: Whose means they are.
    """

    def __init__(self, team: Team) -> None:
        self._team = team
        self.restart()

    def restart(self) -> None:
        """Forget, and let the time run from now."""
        self.steps = 0
        self._sums = torch.zeros(6, device=self._team.device)
        self._started = time.perf_counter()

    def add(self, values: Tensor) -> None:
        """Count a step, by what `loss_tensor` made of its losses."""
        self.steps += 1
        self._sums += values

    def losses(self) -> LossValues:
        """The means since the start; every process has to ask."""
        return LossValues(*self._team.mean(self._sums / max(1, self.steps)).tolist())

    def seconds(self) -> float:
        """The time since the start; on a GPU, read the losses first, which waits for it."""
        return time.perf_counter() - self._started


def loss_tensor(parts: LossParts) -> Tensor:
    """`(6,)` float32 without gradient, in the order of `LossValues`."""
    return torch.stack(
        [
            parts.total.detach(),
            parts.box,
            parts.objectness,
            parts.classification,
            parts.l1,
            parts.positives_per_truth,
        ]
    )
