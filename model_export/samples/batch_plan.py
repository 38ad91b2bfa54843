"""Which samples every step of a run takes: a function of the step's number alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

# The largest stride of the network: sides are multiples of it.
SIZE_STEP: Final = 32
# The size changes after this many steps.
STEPS_PER_SIZE: Final = 10
# Keep the random streams of sizes and of orders apart from those of samples with the same seed.
SIZE_STREAM: Final = 0x51
ORDER_STREAM: Final = 0x0D


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """Everything that one sample depends on, besides the data, the settings and the seed.

    Attributes:
        index: Which image; in a mosaic, one of the four.
        epoch: Which pass over the data, from 0.
        height: Network height in pixels.
        width: Network width in pixels.
        draw: How often the epoch has taken this image before, to fill its last batch.
        closing: Whether the epoch is one of the last, whose samples look like served images.
    """

    index: int
    epoch: int
    height: int
    width: int
    draw: int = 0
    closing: bool = False

    def generator(self, seed: int) -> np.random.Generator:
        """The sample's own randomness: the same in whichever process makes it."""
        return np.random.default_rng((seed, self.epoch, self.index, self.draw))


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches of a whole run, which can be resumed at any step in any number of processes.

    An epoch takes each image once, in a random order of its own; its last batch is filled up from
    the start of that order. The processes together take what a single one would: its batch is
    theirs joined.

    Attributes:
        images: The number of images.
        batch_size: Samples per process and step.
        epochs: Passes over the data.
        closing_epochs: How many of these, at the end, go without mosaic, MixUp and affine maps.
        height: Usual network height in pixels.
        width: Usual network width in pixels.
        size_changes: How many times 32 pixels smaller and larger the sizes become at most.
        seed: The run's seed.
        process: Which process this is, from 0.
        processes: How many take part.
        start: The first step, above 0 in a run that is resumed.
    """

    images: int
    batch_size: int
    epochs: int
    closing_epochs: int
    height: int
    width: int
    size_changes: tuple[int, int] = (0, 0)
    seed: int = 0
    process: int = 0
    processes: int = 1
    start: int = 0

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return -(-self.images // (self.batch_size * self.processes))

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.epochs * self.epoch_steps

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[SampleSpec]]:
        """The batches of this process from step `start` to the end of the run."""
        first, skip = divmod(self.start, self.epoch_steps)
        for epoch in range(first, self.epochs):
            order = self._order(epoch)
            for step in range(skip, self.epoch_steps):
                yield self._batch(epoch, step, order)
            skip = 0

    def is_closing(self, epoch: int) -> bool:
        """Whether an epoch is one of the last, without mosaic, MixUp and affine maps."""
        return epoch >= self.epochs - self.closing_epochs

    def _order(self, epoch: int) -> list[int]:
        rng = np.random.default_rng((self.seed, ORDER_STREAM, epoch))
        order: list[int] = rng.permutation(self.images).tolist()
        return order

    def _batch(self, epoch: int, step: int, order: list[int]) -> list[SampleSpec]:
        closing = self.is_closing(epoch)
        height, width = training_size(
            self.seed,
            epoch * self.epoch_steps + step,
            self.height,
            self.width,
            changes=self.size_changes,
        )
        start = (step * self.processes + self.process) * self.batch_size
        return [
            SampleSpec(
                order[place % self.images], epoch, height, width, place // self.images, closing
            )
            for place in range(start, start + self.batch_size)
        ]


def training_size(
    seed: int, step: int, height: int, width: int, *, changes: tuple[int, int]
) -> tuple[int, int]:
    """The network's input size in one step: another every 10 steps, the same in every process.

    Args:
        seed: The run's seed.
        step: Counted from 0 over the whole run.
        height: Usual height in pixels, a multiple of 32.
        width: Usual width in pixels, a multiple of 32.
        changes: How many times 32 pixels the shorter side becomes smaller and larger at most.

    Returns:
        Height and width in the usual proportion, rounded to multiples of 32.
    """
    rng = np.random.default_rng((seed, SIZE_STREAM, step // STEPS_PER_SIZE))
    down, up = changes
    change = int(rng.integers(-_largest_step_down(height, width, down), up + 1))
    return _changed(height, width, change)


def smallest_training_size(height: int, width: int, *, changes: tuple[int, int]) -> tuple[int, int]:
    """The smallest size that `training_size` gives, whatever the seed and the step."""
    return _changed(height, width, -_largest_step_down(height, width, changes[0]))


def largest_training_size(height: int, width: int, *, changes: tuple[int, int]) -> tuple[int, int]:
    """The largest size that `training_size` gives, whatever the seed and the step."""
    return _changed(height, width, changes[1])


def _largest_step_down(height: int, width: int, steps: int) -> int:
    # A size near 0 would show nothing: sizes do not go below half of the usual one.
    return min(steps, min(height, width) // SIZE_STEP // 2)


def _changed(height: int, width: int, change: int) -> tuple[int, int]:
    """The size whose shorter side is `change` times 32 pixels longer, in the usual proportion."""
    shorter = min(height, width) // SIZE_STEP
    factor = (shorter + change) / shorter
    return _rounded(height * factor), _rounded(width * factor)


def _rounded(side: float) -> int:
    return max(1, round(side / SIZE_STEP)) * SIZE_STEP
