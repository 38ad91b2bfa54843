"""What a training tells those who watch it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model_export.loss.boxes import Targets
from model_export.measure.coco import Metrics


@dataclass(frozen=True, slots=True)
class LossValues:
    """`LossParts` as numbers: the weighted parts add up to the total.

    Attributes:
        total: What is minimised.
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
class RunShape:
    """How long a run is.

    Attributes:
        epochs: Passes over the data.
        epoch_steps: Optimizer steps of one.
        first_step: The step that comes next; above 0 in a run that is resumed.
        batch_size: Images of a step, all processes together.
    """

    epochs: int
    epoch_steps: int
    first_step: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Some optimizer steps, up to one.

    Attributes:
        step: The last of them, from 0 over the whole run.
        rate: Its learning rate.
        losses: Their means.
        images_per_second: Of all processes together, since the record before.
    """

    step: int
    rate: float
    losses: LossValues
    images_per_second: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """An epoch that has ended.

    Attributes:
        epoch: From 0.
        rate: The learning rate of its last step.
        losses: Means of its steps, since a resumption.
        seconds: How long its steps took, less the evaluation.
        images_per_second: Of all processes together.
        metrics: Of the averaged weights on the validation data, if they were measured.
    """

    epoch: int
    rate: float
    losses: LossValues
    seconds: float
    images_per_second: float
    metrics: Metrics | None


class Watcher(Protocol):
    """Sees a training go by; called from the training's own thread."""

    def started(self, shape: RunShape) -> None:
        """The first step comes next."""

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """See samples of a step: `(N, 3, H, W)` uint8 BGR and their ground truths, on the CPU.

        Called at the first step of each epoch.
        """

    def stepped(self, record: StepRecord) -> None:
        """See some steps, each step once."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """See an epoch, after its evaluation."""

    def ended(self) -> None:
        """Let go of files and the terminal; nothing comes after it, whether the run was whole."""


@dataclass(frozen=True, slots=True)
class Watchers:
    """Several watchers as one, told in turn."""

    watchers: Sequence[Watcher]

    def started(self, shape: RunShape) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.started(shape)

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.sampled(step, images, targets)

    def stepped(self, record: StepRecord) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.stepped(record)

    def epoch_ended(self, record: EpochRecord) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.epoch_ended(record)

    def ended(self) -> None:
        """Pass it on."""
        for watcher in self.watchers:
            watcher.ended()
