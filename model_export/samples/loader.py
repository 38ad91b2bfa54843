"""Samples as tensors, made in worker processes, and batches of them."""

import itertools
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
from model_export.samples.augment import PictureSource, augment
from model_export.samples.batch_plan import BatchPlan, SampleSpec
from model_export.samples.settings import Augmentation
from model_export.samples.targets import Targets, pad_targets


class Sample(NamedTuple):
    """One input of the network, and the objects that should be found on it.

    Attributes:
        image: (H, W, 3) uint8, BGR, 0 to 255.
        boxes_xyxy: (K, 4) float32, network pixels.
        class_ids: (K,) int64.
    """

    image: Tensor
    boxes_xyxy: Tensor
    class_ids: Tensor


class Batch(NamedTuple):
    """Samples of one size; a named tuple, because a DataLoader pins the tensors of one by itself.

    Attributes:
        images: (N, 3, H, W) uint8, BGR, 0 to 255: a quarter of the bytes of float32. Channels are
            last in memory, as OpenCV writes them and the network wants them.
        targets: The ground truths, padded, in network pixels.
    """

    images: Tensor
    targets: Targets

    def to(self, device: torch.device) -> "Batch":
        """A copy on another device, made without waiting for it."""
        return Batch(self.images.to(device, non_blocking=True), self.targets.to(device))

    def split(self, parts: int) -> Iterator["Batch"]:
        """This batch as `parts` batches of equal size, in order."""
        for images, boxes, class_ids in zip(
            self.images.chunk(parts),
            self.targets.boxes_xyxy.chunk(parts),
            self.targets.class_ids.chunk(parts),
            strict=True,
        ):
            yield Batch(images, Targets(boxes, class_ids))


@dataclass(frozen=True)
class TrainingSamples(Dataset[Sample]):
    """The augmented samples of a data set, indexed by what a sample depends on.

    Immutable: a sample is the same whenever and in whichever process it is made.

    Attributes:
        pictures: The pictures to make samples of.
        settings: How much samples vary.
        seed: The run's seed.
    """

    pictures: PictureSource
    settings: Augmentation
    seed: int

    def __getitem__(self, spec: SampleSpec) -> Sample:
        """Make a sample.

        Raises:
            ModelExportError: An image file can no longer be read.
        """
        pictures = self.pictures.at_epoch(spec.epoch)
        picture = augment(pictures, spec, self.settings, self.seed)
        # BGR stays: the network takes what OpenCV reads.
        image = torch.from_numpy(picture.image)
        boxes = torch.from_numpy(picture.boxes_xyxy)
        return Sample(image, boxes, torch.from_numpy(picture.class_ids))


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size, and pad their ground truths to the longest."""
    images, boxes, class_ids = zip(*samples, strict=True)
    # In a worker, torch's own collation stacks into shared memory.
    stacked: Tensor = default_collate(list(images))
    return Batch(stacked.permute(0, 3, 1, 2), pad_targets(boxes, class_ids))


def training_batches(
    samples: TrainingSamples,
    plan: BatchPlan,
    *,
    workers: int = 0,
    in_step: bool = False,
    pin_memory: bool = False,
    context: BaseContext | None = None,
) -> Generator[Batch, None, None]:
    """The batches of a plan, the same for any number of workers.

    One loader serves all epochs: workers start once, and prepare the next epoch while one ends.
    Close the generator if you stop before its end.

    Args:
        samples: The samples.
        plan: Which of them each step takes.
        workers: The number of processes that make samples; 0 makes them in this one.
        in_step: Whether the workers work at the same time, each on one of the next batches. For
            a network on the same cores: its threads wait for each other, so that a worker on one
            core slows it down as much as one on each.
        pin_memory: Whether to copy batches to page-locked memory, which a GPU reads directly.
        context: How to start the workers (default: Python's way).

    Raises:
        ModelExportError: An image file can no longer be read.
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
    # A worker begins its next batch when one of its own is taken.
    together = max(1, workers) if in_step else 1
    try:
        while taken := list(itertools.islice(batches, together)):
            for batch in taken:
                if isinstance(batch, ModelExportError):
                    raise batch
                yield batch
    finally:
        # Otherwise they end when the iterator is collected, which may be never: an error on its way
        # out holds on to it, and at its end Python waits for workers that wait for work.
        if workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001


@dataclass(frozen=True)
class _Attempts(Dataset[Sample | ModelExportError]):
    """Samples, or the errors in their place: torch would wrap a worker's error in a traceback."""

    samples: TrainingSamples

    def __getitem__(self, spec: SampleSpec) -> Sample | ModelExportError:
        try:
            return self.samples[spec]
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
    # There are as many workers as cores: threads of OpenCV would only get in their way.
    cv2.setNumThreads(0)
    # Signals often reach the whole process group; the parent decides when its workers end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
