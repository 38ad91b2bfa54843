"""When a request is repeated, and how long to wait before."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

# Nobody has done any work for these, and detection may be repeated in any case.
REPEATED_STATUSES: Final = frozenset({429, 502, 503})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed requests are repeated.

    An answer with `Retry-After` is waited for until the time is over; it is the server that says
    when. Other failures are repeated a few times, after pauses that double.

    Attributes:
        max_tries: Tries of a request that fails without `Retry-After`: no connection, 502, 503.
        first_pause_s: Seconds before the second try.
        longest_pause_s: Maximum of the pauses that double.
        jitter: Share of a pause by which it is made longer at random, so that many clients that
            were refused together do not come back together.
    """

    max_tries: int = 6
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0
    jitter: float = 0.5


class Attempts:
    """The tries of one request, within its time.

    Args:
        policy: How failed requests are repeated.
        timeout_s: Seconds from now on for all tries and the pauses between them.
        clock: Gives the time in seconds.
        chance: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._end = clock() + timeout_s
        self._failed = 0

    def left_s(self) -> float:
        """Seconds that are left."""
        return self._end - self._clock()

    def pause_s(self, retry_after_s: float | None) -> float | None:
        """Seconds to wait before the next try; None if there is to be none.

        Args:
            retry_after_s: Seconds that the server asks to wait, if it does.
        """
        pause = retry_after_s
        if pause is None:
            self._failed += 1
            if self._failed >= self._policy.max_tries:
                return None
            doubled = self._policy.first_pause_s * 2 ** (self._failed - 1)
            pause = min(doubled, self._policy.longest_pause_s)
        pause = max(pause, self._policy.first_pause_s) * (1 + self._policy.jitter * self._chance())
        return pause if pause < self.left_s() else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date; None if it does not."""
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
