"""Samples as tensors, made in worker processes."""

import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import NamedTuple

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from model_export.errors import ModelExportError
from model_export.loss.boxes import Targets, pad_targets
from model_export.samples.augment import PictureSource, augment
from model_export.samples.batches import BatchPlan
from model_export.samples.recipe import Augmentation, Recipe


class Sample(NamedTuple):
    """One input of the network and what should be found on it.

    Attributes:
        image: (H, W, 3) uint8, BGR, 0 to 255.
        boxes_xyxy: (K, 4) float32, network pixels.
        class_ids: (K,) int64.
    """

    image: Tensor
    boxes_xyxy: Tensor
    class_ids: Tensor


class Batch(NamedTuple):
    """Samples of one size; a DataLoader pins a named tuple unasked.

    Attributes:
        images: (N, 3, H, W) uint8, BGR, 0 to 255: a quarter of the bytes to pass on of float32.
            The channels are last in memory, as OpenCV makes them and the network wants them.
        targets: The ground truths, padded, in network pixels.
    """

    images: Tensor
    targets: Targets

    def to(self, device: torch.device) -> "Batch":
        """The same on another device, without waiting for the copy."""
        return Batch(self.images.to(device, non_blocking=True), self.targets.to(device))

    def split(self, parts: int) -> Iterator["Batch"]:
        """So many batches of equal size that make up this one, in order."""
        for images, boxes, class_ids in zip(
            self.images.chunk(parts),
            self.targets.boxes_xyxy.chunk(parts),
            self.targets.class_ids.chunk(parts),
            strict=True,
        ):
            yield Batch(images, Targets(boxes, class_ids))


@dataclass(frozen=True)
class TrainingSamples(Dataset[Sample]):
    """The augmented samples of a data set, by recipe; nothing here changes while it is used.

    Attributes:
        examples: The pictures.
        settings: How much samples vary.
        seed: The run's seed.
    """

    examples: PictureSource
    settings: Augmentation
    seed: int

    def __getitem__(self, recipe: Recipe) -> Sample:
        """The sample of a recipe.

        Raises:
            ModelExportError: An image file cannot be read any more.
        """
        examples = self.examples.at_epoch(recipe.epoch)
        picture = augment(examples, recipe, self.settings, self.seed)
        # BGR stays: the network takes what OpenCV reads.
        image = torch.from_numpy(picture.image)
        boxes = torch.from_numpy(picture.boxes_xyxy)
        return Sample(image, boxes, torch.from_numpy(picture.class_ids))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size, and pad their ground truths to the most that one has."""
    images, boxes, class_ids = zip(*samples, strict=True)
    # Torch's own collation stacks into shared memory where it is in a worker.
    stacked: Tensor = default_collate(list(images))
    return Batch(stacked.permute(0, 3, 1, 2), pad_targets(boxes, class_ids))


def training_batches(
    samples: TrainingSamples,
    plan: BatchPlan,
    *,
    workers: int = 0,
    pin_memory: bool = False,
    context: BaseContext | None = None,
) -> Generator[Batch, None, None]:
    """The batches of a plan, the same for any number of workers.

    One loader serves all epochs: workers are started once, and are busy while an epoch ends.
    Whoever may stop before the end should close it.

    Args:
        samples: The samples.
        plan: Which of them each iteration takes.
        workers: Processes that make samples; 0 makes them in this one.
        pin_memory: Whether to copy batches to where a GPU can fetch them.
        context: How to start the workers (default: Python's).

    Raises:
        ModelExportError: An image file cannot be read any more.
    """
    loader = DataLoader(
        _Attempts(samples),
        batch_sampler=plan,
        collate_fn=_collate_attempts,
        num_workers=workers,
        worker_init_fn=_start_worker,
        pin_memory=pin_memory,
        multiprocessing_context=context if workers else None,
    )
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, ModelExportError):
                raise batch
            yield batch
    finally:
        # Else they end when the iterator is collected, and it may never be: an error on its way
        # out holds on to it, and Python waits at its end for workers that wait for work.
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True)
class _Attempts(Dataset[Sample | ModelExportError]):
    """Samples, or why there is none: torch would wrap an error of a worker in its traceback."""

    samples: TrainingSamples

    def __getitem__(self, recipe: Recipe) -> Sample | ModelExportError:
        try:
            return self.samples[recipe]
        except ModelExportError as error:
            return error


def _collate_attempts(attempts: Sequence[Sample | ModelExportError]) -> Batch | ModelExportError:
    samples = []
    for attempt in attempts:
        if isinstance(attempt, ModelExportError):
            return attempt
        samples.append(attempt)
    return collate(samples)


def _start_worker(_worker: int) -> None:
    # Each worker is one of several: threads of OpenCV would only get in their way.
    cv2.setNumThreads(0)
    # Signals often reach the whole group; the parent decides when its workers end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
