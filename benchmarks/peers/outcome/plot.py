"""Latency against load, with one line per server."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.peers.outcome.results import ALL_CPUS, ALONE, OURS, Run, Typical, is_server, typical

OURS_COLOR = "#d62728"
PEER_COLORS = ("#1f77b4", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")


def draw_latencies(runs: Sequence[Run], titles: Mapping[str, str], path: Path) -> None:
    """Draw p50 and p99 over the rate, with a dot per load, and the rate of the loops on all CPUs.

    Args:
        runs: All that was measured.
        titles: Contender to its name in the legend.
        path: The PNG to write.
    """
    mpl.use("agg")
    entries = typical(runs)
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), sharex=True, layout="constrained")
    for axes, quantile in zip(panels, ("p50", "p99"), strict=True):
        _draw_servers(axes, entries, titles, quantile)
        for entry in entries:
            if entry.contender == ALL_CPUS:
                axes.axvline(entry.rate, color="black", linestyle=":", label=titles[ALL_CPUS])
        axes.set(yscale="log", xlabel="requests/s", ylabel=f"{quantile} latency, ms")
        axes.grid(visible=True, which="both", alpha=0.25)
    panels[0].legend(fontsize="small")
    loads = sorted({entry.connections for entry in entries if is_server(entry.contender)})
    figure.suptitle(f"Latency against load: {', '.join(map(str, loads))} requests in flight")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_servers(
    axes: Axes, entries: Sequence[Typical], titles: Mapping[str, str], quantile: str
) -> None:
    names = [name for name in titles if is_server(name)]
    colors = iter(PEER_COLORS)
    for name in names:
        points = [entry for entry in entries if entry.contender == name]
        mine = name in (OURS, ALONE)
        color = OURS_COLOR if mine else next(colors, "black")
        axes.plot(
            [entry.rate for entry in points],
            [entry.p50_ms if quantile == "p50" else entry.p99_ms for entry in points],
            marker="o",
            markersize=4,
            linewidth=2.5 if name == OURS else 1.2,
            linestyle="dashed" if name == ALONE else "solid",
            color=color,
            label=titles[name],
        )
