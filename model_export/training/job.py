"""A training job, and the parts that follow from it: batches, samples, learning rates."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_export.data.checked_images import CheckedImages
from model_export.data.image_cache import ImageCache
from model_export.data.pictures import TrainingData
from model_export.errors import ModelExportError
from model_export.loss.balance import balanced_weights
from model_export.model.about import About
from model_export.samples.batch_plan import BatchPlan
from model_export.samples.loader import TrainingSamples, training_batches
from model_export.training.config import Machine, TrainingConfig
from model_export.training.parallel import Team
from model_export.training.step import Schedule
from service.core.contract import InputSpec, ModelContract


@dataclass(frozen=True, slots=True)
class Job:
    """One training: its configuration, its data and its files.

    Attributes:
        config: Everything that the numbers depend on, besides the data.
        machine: The machine that the training runs on.
        data: The data to learn from.
        last: The file of the training's state, written after every epoch and when it stops.
        best: The file of the averaged weights of the epoch with the highest AP.
        resume: Whether to continue from `last`.
    """

    config: TrainingConfig
    machine: Machine
    data: TrainingData
    last: Path
    best: Path
    resume: bool = False

    def contract(self) -> ModelContract:
        """The contract of the model, before anything was measured."""
        config = self.config
        dynamic = not config.fixed_size
        return ModelContract(
            name=f"yolox-{config.variant}",
            version="training",
            input=InputSpec("images", config.height, config.width, dynamic_size=dynamic),
            class_names=tuple(self.data.class_names),
            box_coding=config.box_coding,
        )

    def about(self, metrics: Mapping[str, float | None]) -> About:
        """The description that checkpoints carry, with metrics on the validation data."""
        return About(self.config.variant, self.config.head, self.contract(), metrics)

    def plan(self, team: Team, *, start: int = 0) -> BatchPlan:
        """Which samples each step takes in one process of the team, from step `start` on.

        Raises:
            ModelExportError: The processes cannot share a batch equally, or the run has fewer
                steps than `start`.
        """
        config = self.config
        plan = BatchPlan(
            images=len(self.data),
            batch_size=config.share_of_batch(team.processes),
            epochs=config.epochs,
            closing_epochs=config.closing_epochs,
            height=config.height,
            width=config.width,
            size_changes=config.augmentation.size_changes,
            seed=config.seed,
            process=team.process,
            processes=team.processes,
            start=start,
        )
        if start > plan.steps:
            done = -(-start // plan.epoch_steps)
            raise ModelExportError(
                f"{self.last} is {start} steps far, which are {done} epochs of these data: more "
                f"than {config.epochs}; give --epochs {done} or more, and the data that it was "
                "begun with"
            )
        return plan

    def samples(self) -> TrainingSamples:
        """The augmented samples."""
        cache = ImageCache(self.machine.cache) if self.machine.cache else None
        return TrainingSamples(
            self.data.pictures(cache), self.config.augmentation, self.config.seed
        )

    def patience_is_over(self, epoch: int, best_epoch: int) -> bool:
        """Whether the AP has not become better for too many epochs.

        The closing epochs have a patience of their own, because the AP mostly rises in them.
        """
        config = self.config
        if config.patience is None or epoch + 1 == config.epochs:
            return False
        since = best_epoch
        if epoch >= config.first_closing:
            since = max(since, config.first_closing - 1)
        return epoch - since >= config.patience

    def epoch_after_patience(self, epoch: int) -> int:
        """The epoch that follows when patience is over: the first closing one, or the end."""
        first_closing = self.config.first_closing
        return first_closing if epoch < first_closing else self.config.epochs

    def class_weights(self) -> NDArray[np.float32] | None:
        """The weight of each class in the class loss, (C,), or None if all have the same.

        Raises:
            ModelExportError: The pictures are drawn, so that nobody counted their boxes.
        """
        if not self.config.balance:
            return None
        if not isinstance(self.data, CheckedImages):
            raise ModelExportError(
                "--balance needs data whose boxes can be counted, not drawn ones"
            )
        return balanced_weights(self.data.class_counts(), self.config.balance)

    def learning_rates(self, epoch_steps: int) -> Schedule:
        """The learning rate of every step."""
        config = self.config
        return Schedule(
            peak=config.rate_per_image * config.batch_size,
            total_steps=config.epochs * epoch_steps,
            warmup_steps=round(config.warmup_epochs * epoch_steps),
            closing_steps=config.closing_epochs * epoch_steps,
        )

    def first_batches(
        self, images: int, device: torch.device, *, closing: bool = False
    ) -> Iterator[Tensor]:
        """The first training samples in the usual size, to compute batch norm statistics on.

        Args:
            images: The minimum number of samples, in whole batches; fewer if there are fewer.
            device: Where to put them.
            closing: Whether to take them from the closing epochs instead of the whole run.

        Yields:
            `(batch_size, 3, H, W)` float32, BGR, 0-255.
        """
        one_size = replace(self.config.augmentation, multiscale_steps=0)
        job = replace(self, config=replace(self.config, augmentation=one_size))
        plan = job.plan(Team(device))
        before = self.config.first_closing if closing else 0
        batches = training_batches(job.samples(), replace(plan, start=before * plan.epoch_steps))
        for batch in itertools.islice(batches, -(-images // self.config.batch_size)):
            yield batch.images.to(device, torch.float32, memory_format=torch.channels_last)
