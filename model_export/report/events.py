"""The events of a training, and the interface of the watchers that receive them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model_export.measure.coco import Metrics
from model_export.samples.targets import Targets


@dataclass(frozen=True, slots=True)
class LossValues:
    """`LossParts` as numbers: the weighted parts add up to the total.

    Attributes:
        total: The loss that is minimised.
        box: Box loss.
        objectness: Objectness loss.
        classification: Class loss.
        l1: L1 loss, 0 where it is off.
        positives_per_truth: Positives per ground truth.
    """

    total: float
    box: float
    objectness: float
    classification: float
    l1: float
    positives_per_truth: float


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run is about to take its first step.

    Attributes:
        epochs: Passes over the data.
        epoch_steps: Optimizer steps of an epoch.
        first_step: The step that comes next; above 0 in a run that is resumed.
        batch_size: Images per step, all processes together.
    """

    epochs: int
    epoch_steps: int
    first_step: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class StepsTaken:
    """Some optimizer steps have been taken since the last such event.

    Attributes:
        step: The last of them, from 0 over the whole run.
        rate: Its learning rate.
        losses: Means over these steps.
        images_per_second: Speed of these steps, all processes together.
    """

    step: int
    rate: float
    losses: LossValues
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch has ended, and has been measured if that was due.

    Attributes:
        number: Which epoch, from 0.
        rate: The learning rate of its last step.
        losses: Means over its steps, those before an interruption too.
        seconds: How long its steps took, without the measurement.
        images_per_second: Speed of its steps, all processes together.
        metrics: The averaged weights' metrics on the validation data, if they were measured.
        following: The epoch that comes next, from 0; a run whose patience is over leaves some out.
    """

    number: int
    rate: float
    losses: LossValues
    seconds: float
    images_per_second: float
    metrics: Metrics | None
    following: int | None = None


class Watcher(Protocol):
    """Receives the events of a training, in the training's own thread."""

    def started(self, run: RunStarted) -> None:
        """Called before the first step."""

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Called with the samples of the first step of each epoch, before the step.

        Args:
            step: Which step, from 0 over the whole run.
            images: `(N, 3, H, W)` uint8, BGR, on the CPU.
            targets: Their ground truths, on the CPU.
        """

    def stepped(self, steps: StepsTaken) -> None:
        """Called after every few steps, and at the end of each epoch."""

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Called after each epoch and its measurement."""

    def ended(self) -> None:
        """Called last, whether or not the run is complete: releases files and the terminal."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Several watchers as one: each receives every event, in turn."""

    watchers: Sequence[Watcher]

    def started(self, run: RunStarted) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.started(run)

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.sampled(step, images, targets)

    def stepped(self, steps: StepsTaken) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.stepped(steps)

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.epoch_ended(epoch)

    def ended(self) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.ended()
