"""Bounds that all connections of a process share: their number, and the turns of refused ones."""

import time
from typing import Any, Final, Literal

import structlog

from service.observe.metrics import Metrics

DropReason = Literal["too-many", "no-request", "slow-request", "unread-answer"]

# Refused clients that ask again at once take no more than this many turns a second together.
REFUSALS_PER_S: Final = 500
MAX_REST_S: Final = 2.0
# Shorter rests than this are not worth a timer.
FEW_S: Final = 0.02
LOG_PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


class Crowd:
    """Counts the connections of a process, and spaces out the requests of those that were refused.

    Args:
        metrics: Where to count.
        max_connections: How many may be open at once.

    Attributes:
        max_connections: The same.
    """

    def __init__(self, metrics: Metrics, max_connections: int) -> None:
        self.max_connections = max_connections
        self._metrics = metrics
        self._next_turn = 0.0
        self._log_at = 0.0
        self._unlogged = 0

    def joined(self) -> None:
        """Count a new connection."""
        self._metrics.connections.inc()

    def left(self) -> None:
        """Count a connection that has ended."""
        self._metrics.connections.dec()

    def dropped(self, reason: DropReason, client: Any) -> None:  # noqa: ANN401 - as the system names it
        """Count a connection that the server ends; log one of them a second, with the number.

        Args:
            reason: Why it is ended.
            client: The client's address.
        """
        self._metrics.connections_dropped.labels(reason).inc()
        self._unlogged += 1
        now = time.monotonic()
        if now >= self._log_at:
            address = client[0] if client else None
            log.warning("connection dropped", reason=reason, client=address, count=self._unlogged)
            self._log_at, self._unlogged = now + LOG_PAUSE_S, 0

    def rest_s(self) -> float:
        """Seconds until a client that is refused now may ask again.

        A few refused clients do not wait. If a thousand ask again at once, each waits two seconds,
        which leaves the CPUs to the requests that were let in.
        """
        now = time.monotonic()
        rest_s = min(max(0.0, self._next_turn - now), MAX_REST_S)
        self._next_turn = now + rest_s + 1 / REFUSALS_PER_S
        return 0.0 if rest_s < FEW_S else rest_s
