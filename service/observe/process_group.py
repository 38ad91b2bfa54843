"""The metrics that worker processes share, and the CPU and memory of the whole group.

A worker writes its metrics under the number of its place, not under its process id. A worker that
replaces a dead one continues its counters, so that counters never fall and dead processes leave no
files behind.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.registry import Collector

# prometheus_client looks for the folder of its file-backed values in this variable only.
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

# How the values of several processes become one. The highest number of open files counts, and the
# lowest limit.
COMBINE: Final[dict[str, Callable[[list[float]], float]]] = {
    "process_cpu_seconds": sum,
    "process_resident_memory_bytes": sum,
    "process_virtual_memory_bytes": sum,
    "process_start_time_seconds": min,
    "process_open_fds": max,
    "process_max_fds": min,
}


def write_metrics_as(place: int) -> None:
    """Let every metric made from now on keep its values in the folder that the environment names.

    Args:
        place: The worker's place, which names its files; no two live processes may share one.
    """
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def forget_gauges(folder: Path, place: int) -> None:
    """Drop the gauges of the dead worker in this place, and keep its counters."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]


def write_process_ids(folder: Path, process_ids: Iterable[int]) -> None:
    """Write the ids of the live workers, atomically: a reader finds the old list or the new one."""
    new = folder / "processes.new"
    new.write_text(" ".join(map(str, process_ids)), encoding="ascii")
    new.replace(folder / "processes")


class ProcessGroupCollector(Collector):
    """The process metrics of a supervisor and its live workers, as if they were one process.

    Memory that processes share is counted once for each process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Read the operating system's numbers; gives the families of a `ProcessCollector`."""
        supervisor = os.getppid()
        process_ids = [supervisor, *self._workers()]
        families: defaultdict[str, list[Metric]] = defaultdict(list)
        for process_id in process_ids:
            for family in _families(process_id):
                families[family.name].append(family)
        return [
            _combined(same, _ended_cpu_seconds(supervisor) if "cpu" in name else 0.0)
            for name, same in families.items()
        ]

    def _workers(self) -> list[int]:
        try:
            text = (self._folder / "processes").read_text(encoding="ascii")
        except FileNotFoundError:
            return []
        return [int(word) for word in text.split()]


def _families(process_id: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process_id, registry=None).collect()


def _combined(same: list[Metric], more: float) -> Metric:
    first = same[0]
    value = COMBINE[first.name]([family.samples[0].value for family in same]) + more
    family = Metric(first.name, first.documentation, first.type)
    family.add_sample(first.samples[0].name, {}, value)
    return family


def _ended_cpu_seconds(supervisor: int) -> float:
    """CPU time of workers that have ended; with it, the sum of the CPU times never falls."""
    try:
        stat = Path(f"/proc/{supervisor}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    # cutime and cstime. Fields are counted after the process name, which may contain spaces.
    ticks = stat.rpartition(")")[2].split()[13:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
