"""How many CPUs this process may use, and how its threads share them."""

import os
from contextlib import suppress
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cpus(cgroup_root: Path = CGROUP_ROOT) -> int:
    """Whole CPUs within the container's quota and this process's affinity; at least 1."""
    quota = _quota_v2(cgroup_root) or _quota_v1(cgroup_root)
    allowed = _affinity()
    return max(1, min(allowed, int(quota)) if quota else allowed)


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


def _quota_v2(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(root: Path) -> float | None:
    try:
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
