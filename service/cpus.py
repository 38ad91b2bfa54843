"""How many CPUs this process may use, and how its threads share them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.cgroups import CGROUP_ROOT, OWN_CGROUPS, limiting_groups


@dataclass(frozen=True, slots=True)
class CpuCount:
    """A number of CPUs, and what says so.

    Attributes:
        cpus: Whole CPUs, at least 1.
        source: The limit that counts, for people to read.
    """

    cpus: int
    source: str


def count_cpus(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> CpuCount:
    """The CPUs within the quotas of this process's cgroups and within its affinity.

    Half a CPU or more counts as a whole one. A quota of 1.5 CPUs on one thread would waste a third
    of it; on two threads the kernel pauses both for a quarter of the time, and nothing is lost.

    Args:
        cgroup_root: Where the cgroup file systems are mounted.
        own_cgroups: The file that names the cgroups of this process.
    """
    allowed = _affinity()
    lowest = min(_quotas(cgroup_root, own_cgroups), default=None)
    if lowest is None or lowest[0] >= allowed:
        return CpuCount(allowed, "CPUs that this process may run on")
    quota, file = lowest
    return CpuCount(max(1, int(quota + 0.5)), f"quota of {quota:.4g} CPUs in {file}")


def usable_cpus(cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> int:
    """The number that `count_cpus` finds."""
    return count_cpus(cgroup_root, own_cgroups).cpus


def cpus_of_process(processes: int) -> int:
    """The share of one of several processes that use them side by side; at least 1."""
    return max(1, usable_cpus() // processes)


def let_threads_finish() -> None:
    """From here on, this thread and those it starts wait for a CPU instead of interrupting others.

    As a rule Linux stops a thread that computes as soon as another gets something to do, and every
    packet of a crowd is something to do. A policy that somebody chose for the process stays.
    """
    if not hasattr(os, "SCHED_BATCH"):
        return
    with suppress(OSError):  # sandboxes may forbid it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path, own_cgroups: Path) -> Iterator[tuple[float, Path]]:
    """Every CPU quota of this process's groups and of their parents, with its file."""
    for group in limiting_groups("cpu", root, own_cgroups):
        for read, name in ((_quota_v2, "cpu.max"), (_quota_v1, "cpu.cfs_quota_us")):
            quota = read(group / name)
            if quota is not None:
                yield quota, group / name


def _quota_v2(file: Path) -> float | None:
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(file: Path) -> float | None:
    try:
        quota = int(file.read_text(encoding="ascii"))
        period = int(file.with_name("cpu.cfs_period_us").read_text(encoding="ascii"))
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
