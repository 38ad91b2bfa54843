"""The learning rate over a training: warm-up, cosine, and a constant end (YOLOX, 2107.08430)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning rate for every optimizer step.

    Attributes:
        peak: The rate at the end of the warm-up.
        total_steps: Steps of the whole training.
        warmup_steps: Steps in which the rate rises from 0 to `peak`, with the square of the step.
        closing_steps: Last steps, without mosaic, at the lowest rate.
        floor_ratio: The lowest rate, as a share of `peak`.
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    closing_steps: int = 0
    floor_ratio: float = 0.05

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps) ** 2
        floor = self.peak * self.floor_ratio
        falling = self.total_steps - self.warmup_steps - self.closing_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, falling))
        return floor + (self.peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
