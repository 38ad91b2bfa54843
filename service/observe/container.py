"""Metrics of the limits that a container, or another control group, sets for this server."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.cgroups import CGROUP_ROOT, OWN_CGROUPS, limiting_groups

# Without a limit, cgroup v1 gives a number close to the largest of 64 bits.
UNLIMITED = 2**60


class ContainerCollector(Collector):
    """Reads the control group at every scrape, version 1 or 2; without limits it has no values.

    The group counts all processes of the server, and what else runs in the container.

    Args:
        root: Where the cgroup file systems are mounted.
        own_cgroups: The file that names the cgroups of this process.
    """

    def __init__(self, root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS) -> None:
        self._root = root
        self._own_cgroups = own_cgroups

    def collect(self) -> Iterable[Metric]:
        """Give memory against its limit, and how often the CPU quota paused the server."""
        used = GaugeMetricFamily(
            "yolox_container_memory_used_bytes",
            "Memory of the container that the kernel cannot reclaim, its page cache left out.",
        )
        limit = GaugeMetricFamily(
            "yolox_container_memory_limit_bytes", "Memory at which the kernel kills the container."
        )
        periods = CounterMetricFamily(
            "yolox_container_cpu_periods", "Periods of the CPU quota in which the server ran."
        )
        throttled = CounterMetricFamily(
            "yolox_container_cpu_throttled_periods",
            "Periods in which the quota was used up and the server paused.",
        )
        for most, group in sorted(self._memory_limits())[:1]:
            limit.add_metric([], most)
            used.add_metric([], _used_memory(group))
        for statistics in self._cpu_statistics():
            periods.add_metric([], statistics["nr_periods"])
            throttled.add_metric([], statistics["nr_throttled"])
            break
        return [used, limit, periods, throttled]

    def _memory_limits(self) -> Iterator[tuple[int, Path]]:
        """The memory limits of the own groups and their parents, in bytes, each with its group."""
        for group in limiting_groups("memory", self._root, self._own_cgroups):
            for name in ("memory.max", "memory.limit_in_bytes"):
                most = _number(group / name)
                if most is not None and most < UNLIMITED:
                    yield most, group

    def _cpu_statistics(self) -> Iterator[dict[str, int]]:
        """The statistics of those groups that have a CPU quota: the others count no periods."""
        for group in limiting_groups("cpu", self._root, self._own_cgroups):
            statistics = _numbers(group / "cpu.stat")
            if statistics.get("nr_periods", 0) > 0 and "nr_throttled" in statistics:
                yield statistics


def _used_memory(group: Path) -> int:
    """Memory of a group without the page cache that nobody used lately, as the kubelet counts."""
    usage = _number(group / "memory.current")
    if usage is None:
        usage = _number(group / "memory.usage_in_bytes") or 0
    statistics = _numbers(group / "memory.stat")
    reclaimable = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    return max(0, usage - reclaimable)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is none, or it is `max`
        return None


def _numbers(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}
    except (OSError, ValueError):
        return {}
