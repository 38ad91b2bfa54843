"""The search for the greatest rate within the objective."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.capacity.step import Objective, Step

# A first rate that is too high is halved, but not for ever.
LOWEST_OF_FIRST = 1 / 16


@dataclass(frozen=True, slots=True)
class Search:
    """How the rates go up.

    Attributes:
        first: The first rate, in requests a second.
        factor: Each rate over the one before it, until one fails.
        precision: The search ends when the lowest rate that failed is at most this much above the
            greatest that did not, as a part of it.
        limit: No rate is higher.
    """

    first: float = 5.0
    factor: float = 1.6
    precision: float = 0.05
    limit: float = 20_000.0

    def following(self, passed: float, failed: float | None) -> float | None:
        """The rate to try next, or None at the end.

        Args:
            passed: The greatest rate that met the objective; 0 if none did.
            failed: The lowest rate that did not.
        """
        if failed is None:
            higher = passed * self.factor
            return higher if higher <= self.limit else None
        if passed == 0:
            return failed / 2 if failed / 2 >= self.first * LOWEST_OF_FIRST else None
        is_close = failed <= passed * (1 + self.precision)
        return None if is_close else math.sqrt(passed * failed)


def climb(measure: Callable[[float], Step], objective: Objective, search: Search) -> Iterator[Step]:
    """The steps of a ramp: up until a rate fails the objective, then between the last two.

    A rate that fails is tried once more, for other programs may have been in the way.

    Args:
        measure: Offers a rate, and tells what came of it.
        objective: The definition of good service.
        search: How the rates go up.
    """
    passed, failed = 0.0, None
    rate: float | None = search.first
    while rate is not None:
        step = measure(rate)
        if not step.meets(objective):
            step = max(step, measure(rate), key=lambda each: each.good_share)
        yield step
        if step.meets(objective):
            passed = rate
        else:
            failed = rate
        rate = search.following(passed, failed)


def greatest(steps: Sequence[Step], objective: Objective) -> Step | None:
    """The step of the greatest rate that met the objective, or None."""
    met = [step for step in steps if step.meets(objective)]
    return max(met, key=lambda step: step.rate, default=None)
