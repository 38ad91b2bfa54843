"""The measurements, and their medians, ratios within a round, and goals."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

OURS: Final = "ours"
# Our server with its defaults: one process.
ALONE: Final = "ours-alone"
# Loops without HTTP, in one process or in one per CPU. No server of this pipeline can be quicker.
ONE_THREAD, WIDE, ALL_CPUS = "loop-1", "loop-wide", "loop-all"
# The same as `ALL_CPUS`, with a plain ONNX Runtime session instead of the server's engine.
PLAIN: Final = "loop-plain"
LOOPS: Final = (ONE_THREAD, WIDE, ALL_CPUS, PLAIN)
FULL_LOOPS: Final = (ALL_CPUS, PLAIN)

LEAST_LEAD: Final = 1.5
LEAST_SHARE_OF_LIMIT: Final = 0.92
MOST_OVERHEAD_MS: Final = 1.5
# The loads, in requests in flight, to which the goals apply.
LOADED: Final = (8, 32)
# A run is unreliable if other programs took a larger share of the CPU.
DISTURBED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one contender.

    Attributes:
        contender: Name of the server or loop.
        round: Number of the round, from 0.
        connections: Requests in flight; for a loop, how many loops run side by side.
        requests: Requests answered, errors included.
        seconds: Duration.
        errors: Answers other than 200, and requests without an answer.
        p50_ms: Median latency.
        p90_ms: 90th percentile of the latency.
        p99_ms: 99th percentile of the latency.
        cpu_ms: CPU time per request, of all the contender's processes.
        memory_mib: Proportional set size of those processes at the end of the load.
        foreign_share: Share of the machine's CPU time that other programs took, 0 to 1.
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
    """Medians over the rounds of one contender at one load; other attributes are those of `Run`.

    Attributes:
        rate: Good answers a second.
        of_best_peer: Rate over that of the fastest peer in the same round; None without peers.
        memory_mib: The largest of all rounds.
        errors: The sum of all rounds.
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
    """A figure that the comparison is about, and the limit that it should keep.

    Attributes:
        text: The name of the figure.
        value: The measured value.
        limit: The limit; None where there is no goal.
        met: Whether the limit is kept; None where there is no goal.
    """

    text: str
    value: float
    limit: float | None = None
    met: bool | None = None


def is_server(contender: str) -> bool:
    """Whether this is a server and no loop."""
    return contender not in LOOPS


def is_peer(contender: str) -> bool:
    """Whether this is somebody else's server."""
    return is_server(contender) and contender not in (OURS, ALONE)


def typical(runs: Iterable[Run]) -> list[Typical]:
    """The medians of each contender at each load, in the order of their first runs."""
    runs = list(runs)
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.contender, run.connections), []).append(run)
    best = _best_peers(runs)
    return [_typical(group, best) for group in groups.values()]


def goals(runs: Iterable[Run]) -> list[Goal]:
    """The goals, and other ratios of interest, for which the runs have the numbers."""
    runs = list(runs)
    best = _best_peers(runs)
    limits = _by_round(runs, ALL_CPUS, None, lambda run: run.rate)
    plain = _by_round(runs, PLAIN, None, lambda run: run.rate)
    found: list[Goal] = []
    for connections in loads_under_goals(runs):
        ours = _by_round(runs, OURS, connections, lambda run: run.rate)
        peers = {at: rate for (at, load), rate in best.items() if load == connections}
        rate = f"rate at c={connections} over"
        found += _at_least(f"{rate} the best peer's", _median_ratio(ours, peers), LEAST_LEAD)
        share = _median_ratio(ours, limits)
        found += _at_least(f"{rate} that of loops on all CPUs", share, LEAST_SHARE_OF_LIMIT)
        to_plain = _median_ratio(ours, plain)
        if to_plain is not None:
            found.append(Goal(f"{rate} that of loops on plain ONNX Runtime", to_plain))
    overhead = _overhead_ms(runs)
    if overhead is not None:
        text = "p50 at c=1 less that of the quicker loop, in ms"
        found.append(Goal(text, overhead, MOST_OVERHEAD_MS, overhead <= MOST_OVERHEAD_MS))
    return found


def loads_under_goals(runs: Iterable[Run]) -> list[int]:
    """The loads of `LOADED` that ours had; else the largest that it had, if that is above 1."""
    loads = {run.connections for run in runs if run.contender == OURS and run.connections > 1}
    return [load for load in LOADED if load in loads] or sorted(loads)[-1:]


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
    """A number of a contender's run in each round, at one load or at any."""
    return {
        run.round: read(run)
        for run in runs
        if run.contender == contender and connections in (None, run.connections)
    }


def _median_ratio(over: Mapping[int, float], under: Mapping[int, float]) -> float | None:
    """The median over the rounds that both have; None without any."""
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
