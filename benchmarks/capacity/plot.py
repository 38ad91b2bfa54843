"""The plot of a ramp: latency and the share of good answers, against the rate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.capacity.step import Objective, Step

DPI: Final = 120
SIZE_INCHES: Final = (8.0, 6.0)
GOOD, LATE, LIMIT = "#2a78b8", "#c25b1a", "#777777"


def draw(steps: Sequence[Step], objective: Objective, best: Step | None, path: Path) -> None:
    """Write a PNG file.

    Args:
        steps: The steps of the ramp.
        objective: The definition of good service.
        best: The step of the greatest rate within the objective.
        path: Where to write.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    ordered = [step for step in sorted(steps, key=lambda each: each.rate) if step.p99_ms]
    rates = [step.rate for step in ordered]
    figure, (times, shares) = plt.subplots(2, 1, sharex=True, figsize=SIZE_INCHES)
    times.plot(rates, [step.p99_ms for step in ordered], "o-", color=LATE, label="99th percentile")
    times.plot(rates, [step.median_ms for step in ordered], "o-", color=GOOD, label="median")
    times.axhline(objective.slo_ms, color=LIMIT, linestyle="--", label="objective")
    times.set(yscale="log", ylabel="time to an answer, ms")
    shares.plot(rates, [100 * step.good_share for step in ordered], "o-", color=GOOD)
    shares.axhline(100 * objective.share, color=LIMIT, linestyle="--")
    shares.set(xlabel="images offered each second", ylabel="answered in time, %", ylim=(0, 102))
    if best is not None:
        for axes in (times, shares):
            axes.axvline(best.rate, color=GOOD, alpha=0.4, linewidth=4)
        times.set_title(f"{best.rate:.3g} images/s within the objective")
    times.legend(frameon=False)
    figure.savefig(path, dpi=DPI, bbox_inches="tight")
    plt.close(figure)
