"""Which images are worth labelling: those on which the model is unsure, and a few of all."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal

import numpy as np

from service.core.decode import Detections

Reason = Literal["disagreement", "rare", "uncertain", "sample"]
REASONS: Final[Sequence[Reason]] = ("disagreement", "rare", "uncertain", "sample")

# A score so little above the threshold may as well have been below it.
UNCERTAIN_MARGIN: Final = 0.1
# A class is rare if it has less than this part of the boxes, once so many were seen.
RARE_SHARE: Final = 0.01
LEAST_BOXES: Final = 200
HOUR_S: Final = 3600.0
# So many images may follow each other at once, after a quiet time.
BURST: Final = 5.0


class Allowance:
    """So many an hour, and a few at once after a quiet time.

    Args:
        per_hour: How many, on average.
        clock: Gives the time in seconds.
    """

    def __init__(self, per_hour: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_hour / HOUR_S
        self._clock = clock
        self._left = BURST
        self._then = clock()

    def take(self) -> bool:
        """Whether one more is allowed now; it counts then."""
        now = self._clock()
        self._left = min(BURST, self._left + (now - self._then) * self._per_s)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Chooser:
    """Chooses images by what the model found in them, each reason within its own allowance.

    Args:
        per_hour: How many images an hour may be chosen.
        share: The part of all images that the reason `sample` looks at.
        clock: Gives the time in seconds.
    """

    def __init__(
        self, per_hour: float, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._allowed = {reason: Allowance(per_hour / len(REASONS), clock) for reason in REASONS}
        self._seen: Counter[str] = Counter()

    def reason(self, found: Detections, names: Sequence[str], confidence: float) -> Reason | None:
        """Why an image is to be kept; None if it is not.

        Args:
            found: What the model found in it.
            names: A name for each class id.
            confidence: The threshold that the scores had to reach.
        """
        classes = [names[class_id] for class_id in found.class_ids.tolist()]
        is_rare = self._has_rare(classes)
        self._seen.update(classes)
        if is_rare and self._allowed["rare"].take():
            return "rare"
        if is_uncertain(found, confidence) and self._allowed["uncertain"].take():
            return "uncertain"
        # A model that never finds a class is not unsure either: only chance shows such images.
        if random.random() < self._share and self._allowed["sample"].take():  # noqa: S311
            return "sample"
        return None

    def disagreement(self) -> Reason | None:
        """Why an image is to be kept on which two versions disagree; None if there were enough."""
        return "disagreement" if self._allowed["disagreement"].take() else None

    def _has_rare(self, classes: Sequence[str]) -> bool:
        total = self._seen.total()
        if total < LEAST_BOXES:
            return False
        return any(self._seen[name] < RARE_SHARE * total for name in classes)


def is_uncertain(found: Detections, confidence: float) -> bool:
    """Whether a score is so near to the threshold that a little less would have lost its box."""
    return bool(len(found)) and float(np.min(found.scores)) < confidence + UNCERTAIN_MARGIN
