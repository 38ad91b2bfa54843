"""The results as Markdown: the table, the goals, and remarks on the runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.peers.outcome.results import (
    DISTURBED,
    FULL_LOOPS,
    Goal,
    Run,
    Typical,
    goals,
    is_server,
    loads_under_goals,
    typical,
)

SHOWN_LOADS: Final = (1, 8, 32)
# The load whose CPU time the table shows.
BUSY_LOAD: Final = 8


def results_table(runs: Sequence[Run], titles: Mapping[str, str], corner: str = "") -> str:
    """A row for each contender.

    Args:
        runs: All that was measured.
        titles: Contender to its name in the table, in the order of the rows.
        corner: The text of the top left cell.

    Returns:
        Lines of Markdown; rates in requests a second, with the ratio to the best peer in
        parentheses.
    """
    cells = {(entry.contender, entry.connections): entry for entry in typical(runs)}
    loads = shown_loads(runs)
    head = [corner, *(f"req/s c={load}" for load in loads)]
    head += [*(f"p50 / p99 ms c={load}" for load in loads), "CPU ms/request", "memory MiB"]
    lines = [_line(head), _line(["---", *(["---:"] * (len(head) - 1))])]
    for name, title in titles.items():
        entries = [cells[key] for key in cells if key[0] == name]
        if entries:
            lines.append(_line([title, *_row(entries, loads)]))
    return "\n".join(lines)


def goals_list(runs: Sequence[Run]) -> str:
    """A line of Markdown for each goal."""
    return "\n".join(_goal(goal) for goal in goals(runs))


def shown_loads(runs: Iterable[Run]) -> list[int]:
    """The loads that the table shows: the usual ones that were measured, and those under goals."""
    runs = list(runs)
    measured = {run.connections for run in runs if is_server(run.contender)}
    return sorted(measured & {*SHOWN_LOADS, *loads_under_goals(runs)}) or sorted(measured)


def remarks(runs: Sequence[Run]) -> list[str]:
    """Remarks on the runs: errors, and other programs' work on the machine."""
    found = [
        f"{entry.contender} failed {entry.errors} times at c={entry.connections}"
        for entry in typical(runs)
        if entry.errors
    ]
    disturbed = sum(run.foreign_share > DISTURBED for run in runs)
    if disturbed:
        share = f"{DISTURBED:.0%}"
        found.append(f"others took more than {share} of the CPU in {disturbed} of {len(runs)} runs")
    return found


def _row(entries: Sequence[Typical], loads: Sequence[int]) -> list[str]:
    at = {entry.connections: entry for entry in entries}
    timed = at
    if not is_server(entries[0].contender):
        # Loops on all CPUs limit the rate at every load beyond 1, but no latency.
        full = entries[0].contender in FULL_LOOPS
        at = {load: entries[0] for load in loads if full == (load > 1)}
        timed = {} if full else at
    busiest = at.get(BUSY_LOAD) or entries[-1]
    return [
        *(_rate(at.get(load)) for load in loads),
        *(_latency(timed.get(load)) for load in loads),
        f"{busiest.cpu_ms:.1f}",
        f"{max(entry.memory_mib for entry in entries):.0f}",
    ]


def _rate(entry: Typical | None) -> str:
    if entry is None:
        return ""
    ratio = "" if entry.of_best_peer is None else f" ({entry.of_best_peer:.2f})"
    return f"{entry.rate:.1f}{ratio}"


def _latency(entry: Typical | None) -> str:
    return "" if entry is None else f"{entry.p50_ms:.1f} / {entry.p99_ms:.1f}"


def _goal(goal: Goal) -> str:
    if goal.limit is None:
        return f"- {goal.text}: {goal.value:.2f} (no goal)"
    verdict = "met" if goal.met else "MISSED"
    return f"- {goal.text}: {goal.value:.2f}, goal {goal.limit:g}: {verdict}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
