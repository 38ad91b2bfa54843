"""What was measured, and what follows from it: medians, ratios of a round, goals."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

OURS: Final = "ours"
# Ours too, with its defaults: one process.
ALONE: Final = "ours-alone"
# Loops in one process or one for each CPU, without HTTP: what no server of this pipeline passes.
ONE_THREAD, WIDE, ALL_CPUS = "loop-1", "loop-wide", "loop-all"
LOOPS: Final = (ONE_THREAD, WIDE, ALL_CPUS)

LEAST_LEAD: Final = 1.5
LEAST_SHARE_OF_LIMIT: Final = 0.92
MOST_OVERHEAD_MS: Final = 1.5
LOADED: Final = (8, 32)
# A run of which others took more of the CPU says little.
DISTURBED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one contender.

    Attributes:
        contender: Its name.
        round: In which round, from 0.
        connections: Requests in flight; of a loop, how many turn side by side.
        requests: How many were answered, errors included.
        seconds: How long it took.
        errors: Answers other than 200, and requests without one.
        p50_ms: Median latency.
        p90_ms: 90th percentile of it.
        p99_ms: 99th percentile of it.
        cpu_ms: CPU time of all the contender's processes, of each request.
        memory_mib: Proportional set size of those processes at the end of the load.
        foreign_share: How much of the machine's CPU time others took, 0 to 1.
    """

    contender: str
    round: int
    connections: int
    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mib: float
    foreign_share: float

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (self.requests - self.errors) / self.seconds


@dataclass(frozen=True, slots=True)
class Typical:
    """The medians over the rounds of one contender at one load; attributes as in `Run`.

    Attributes:
        rate: Good answers a second.
        of_best_peer: Its rate over that of the fastest peer of the same round; None without peers.
        errors: Of all rounds together.
    """

    contender: str
    connections: int
    rate: float
    of_best_peer: float | None
    p50_ms: float
    p90_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mib: float
    errors: int


@dataclass(frozen=True, slots=True)
class Goal:
    """Something to reach, and what was reached.

    Attributes:
        text: What it is.
        value: What was measured.
        limit: What it is held to.
        met: Whether it is kept.
    """

    text: str
    value: float
    limit: float
    met: bool


def is_server(contender: str) -> bool:
    """Whether this is no loop."""
    return contender not in LOOPS


def is_peer(contender: str) -> bool:
    """Whether this is somebody else's server."""
    return is_server(contender) and contender not in (OURS, ALONE)


def typical(runs: Iterable[Run]) -> list[Typical]:
    """The medians of each contender at each load, in the order in which they first ran."""
    runs = list(runs)
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.contender, run.connections), []).append(run)
    best = _best_peers(runs)
    return [_typical(group, best) for group in groups.values()]


def goals(runs: Iterable[Run]) -> list[Goal]:
    """The goals that the runs have the numbers for."""
    runs = list(runs)
    found: list[Goal] = []
    for connections in LOADED:
        best = {at: rate for (at, load), rate in _best_peers(runs).items() if load == connections}
        ours = _by_round(runs, OURS, connections, lambda run: run.rate)
        limits = _by_round(runs, ALL_CPUS, None, lambda run: run.rate)
        lead = _median_ratio(ours, best)
        found += _at_least(f"rate at c={connections} over the best peer's", lead, LEAST_LEAD)
        share = _median_ratio(ours, limits)
        text = f"rate at c={connections} over that of loops on all CPUs"
        found += _at_least(text, share, LEAST_SHARE_OF_LIMIT)
    overhead = _overhead_ms(runs)
    if overhead is not None:
        text = "p50 at c=1 less that of the quicker loop, in ms"
        found.append(Goal(text, overhead, MOST_OVERHEAD_MS, overhead <= MOST_OVERHEAD_MS))
    return found


def _typical(group: list[Run], best: Mapping[tuple[int, int], float]) -> Typical:
    ratios = [
        run.rate / best[run.round, run.connections]
        for run in group
        if is_server(run.contender) and best.get((run.round, run.connections))
    ]
    return Typical(
        contender=group[0].contender,
        connections=group[0].connections,
        rate=statistics.median(run.rate for run in group),
        of_best_peer=statistics.median(ratios) if ratios else None,
        p50_ms=statistics.median(run.p50_ms for run in group),
        p90_ms=statistics.median(run.p90_ms for run in group),
        p99_ms=statistics.median(run.p99_ms for run in group),
        cpu_ms=statistics.median(run.cpu_ms for run in group),
        memory_mib=max(run.memory_mib for run in group),
        errors=sum(run.errors for run in group),
    )


def _best_peers(runs: Iterable[Run]) -> dict[tuple[int, int], float]:
    """(round, connections) to the rate of the fastest peer there."""
    best: dict[tuple[int, int], float] = {}
    for run in runs:
        if is_peer(run.contender):
            key = (run.round, run.connections)
            best[key] = max(run.rate, best.get(key, 0.0))
    return best


def _by_round(
    runs: Iterable[Run], contender: str, connections: int | None, read: Callable[[Run], float]
) -> dict[int, float]:
    """Round to a number of a contender's run in it; any load where none is named."""
    return {
        run.round: read(run)
        for run in runs
        if run.contender == contender and connections in (None, run.connections)
    }


def _median_ratio(over: Mapping[int, float], under: Mapping[int, float]) -> float | None:
    """The median over the rounds that both have."""
    ratios = [over[at] / under[at] for at in over if under.get(at)]
    return statistics.median(ratios) if ratios else None


def _at_least(text: str, value: float | None, limit: float) -> list[Goal]:
    return [] if value is None else [Goal(text, value, limit, value >= limit)]


def _overhead_ms(runs: Iterable[Run]) -> float | None:
    runs = list(runs)
    ours = _by_round(runs, OURS, 1, lambda run: run.p50_ms)
    loops = [_by_round(runs, name, None, lambda run: run.p50_ms) for name in (ONE_THREAD, WIDE)]
    differences = [
        ours[at] - min(loop[at] for loop in loops if at in loop)
        for at in ours
        if any(at in loop for loop in loops)
    ]
    return statistics.median(differences) if differences else None
