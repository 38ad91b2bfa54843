"""One step of a ramp: what was offered, and how much of it was answered in time."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Objective:
    """The definition of good service.

    Attributes:
        slo_ms: Time in which a request is answered with 200, in ms.
        share: Part of all requests of which that must be true, 0 to 1.
    """

    slo_ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Step:
    """The answers to one rate of requests.

    Attributes:
        rate: Requests in a second that were offered.
        offered: Number of requests that were due.
        good: Those answered with 200 in time.
        late: Those answered with 200 too late.
        refused: Those answered with 503 or 429.
        failed: Those with any other answer, or none.
        median_ms: Median of the time to an answer with 200, in ms; 0 if there was none.
        p99_ms: Its 99th percentile.
        cpu_ms: CPU time of the servers for each answer with 200, in ms; None if not known.
    """

    rate: float
    offered: int
    good: int
    late: int
    refused: int
    failed: int
    median_ms: float
    p99_ms: float
    cpu_ms: float | None = None

    @property
    def unsent(self) -> int:
        """Requests that were due while the load generator had no connection left for them."""
        return max(0, self.offered - self.good - self.late - self.refused - self.failed)

    @property
    def good_share(self) -> float:
        """Part of the requests that were due which was served well."""
        return self.good / self.offered if self.offered else 0.0

    def meets(self, objective: Objective) -> bool:
        """Whether the service was good enough."""
        return self.good_share >= objective.share
