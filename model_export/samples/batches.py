"""Which samples every iteration of a run takes: a function of the iteration's number alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.samples.recipe import Recipe, training_size

# Keeps the random stream of orders apart from those of samples and sizes with the same seed.
ORDER_STREAM: Final = 0x0D


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The batches of a whole run, so that it can be resumed anywhere, in any number of processes.

    An epoch takes each image once, in a random order of its own; the last batch is filled from the
    start of the order. Together, the processes take what one process would with their batches
    joined.

    Attributes:
        images: How many images there are.
        batch_size: Samples of one process and iteration.
        epochs: Passes over the data.
        closing_epochs: How many of these, at the end, go without mosaic, MixUp and affine.
        height: Usual network height in pixels.
        width: Usual network width in pixels.
        multiscale_steps: Sizes vary by up to so many times 32 pixels; 0 for one size.
        seed: The run's seed.
        process: Which process this is, from 0.
        processes: How many take part.
        start: The first iteration, for a run that was interrupted.
    """

    images: int
    batch_size: int
    epochs: int
    closing_epochs: int
    height: int
    width: int
    multiscale_steps: int = 0
    seed: int = 0
    process: int = 0
    processes: int = 1
    start: int = 0

    @property
    def epoch_iterations(self) -> int:
        """Iterations of an epoch."""
        return -(-self.images // (self.batch_size * self.processes))

    @property
    def iterations(self) -> int:
        """Iterations of the run."""
        return self.epochs * self.epoch_iterations

    def __len__(self) -> int:
        return self.iterations - self.start

    def __iter__(self) -> Iterator[list[Recipe]]:
        """The batches of this process from iteration `start` to the end of the run."""
        first, skip = divmod(self.start, self.epoch_iterations)
        for epoch in range(first, self.epochs):
            order = self._order(epoch)
            for step in range(skip, self.epoch_iterations):
                yield self._batch(epoch, step, order)
            skip = 0

    def _order(self, epoch: int) -> list[int]:
        rng = np.random.default_rng((self.seed, ORDER_STREAM, epoch))
        order: list[int] = rng.permutation(self.images).tolist()
        return order

    def _batch(self, epoch: int, step: int, order: list[int]) -> list[Recipe]:
        closing = epoch >= self.epochs - self.closing_epochs
        height, width = training_size(
            self.seed,
            epoch * self.epoch_iterations + step,
            self.height,
            self.width,
            steps=self.multiscale_steps,
        )
        start = (step * self.processes + self.process) * self.batch_size
        return [
            Recipe(order[place % self.images], epoch, height, width, place // self.images, closing)
            for place in range(start, start + self.batch_size)
        ]
