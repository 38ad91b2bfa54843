"""The findings of a ramp, for people to read."""

from collections.abc import Sequence
from typing import Final

from benchmarks.capacity.plan import HEADROOM, LOADS, images_per_core_hour, replicas_for
from benchmarks.capacity.step import Objective, Step

FORM: Final = "{:>9} {:>8} {:>10} {:>8} {:>8} {:>8} {:>8} {:>13}"
TITLES: Final = FORM.format(
    *("images/s", "in time", "median ms", "p99 ms", "refused", "failed", "unsent", "CPU ms/image")
)


def line(step: Step) -> str:
    """A step as a line of the table."""
    return FORM.format(
        f"{step.rate:.1f}",
        f"{step.good_share:.2%}",
        f"{step.median_ms:.0f}",
        f"{step.p99_ms:.0f}",
        step.refused,
        step.failed,
        step.unsent,
        "not known" if step.cpu_ms is None else f"{step.cpu_ms:.1f}",
    )


def summary(best: Step | None, objective: Objective, loads: Sequence[float] = LOADS) -> str:
    """The greatest rate, and what follows from it.

    Args:
        best: The step of the greatest rate within the objective.
        objective: The definition of good service.
        loads: Images a second for which replicas are counted.
    """
    within = f"{objective.share:.1%} answered within {objective.slo_ms:g} ms"
    if best is None:
        return f"no rate met the objective ({within})"
    lines = [f"greatest rate with {within}: {best.rate:.1f} images/s", _core_hours(best)]
    lines.append(f"replicas, each loaded to {HEADROOM:.0%} of that rate, and a spare one:")
    lines += [f"{load:>10,.0f} images/s  {replicas_for(load, best.rate):>6,}" for load in loads]
    return "\n".join(lines)


def _core_hours(best: Step) -> str:
    if best.cpu_ms is None:
        return (
            "images per core-hour: not known, for the metrics that were read do not tell of as "
            "many images as were answered; name those of every server with METRICS"
        )
    return f"images per core-hour: {images_per_core_hour(best.cpu_ms):,.0f} (CPU time)"
