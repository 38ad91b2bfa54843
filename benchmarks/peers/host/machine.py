"""The machine that is measured on: what it is, and how busy others keep it."""

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.cpus import usable_cpus

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# In the first line of /proc/stat: waiting for nothing, and for a disk.
IDLE_FIELDS: Final = (3, 4)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the numbers come from.

    Attributes:
        cpu: Model of the processor.
        cpus: How many of them this process may use.
        memory_gib: Size of the memory.
        system: Kernel and its release.
        python: Version of the interpreter.
        date: Day of the measurement, UTC.
    """

    cpu: str
    cpus: int
    memory_gib: float
    system: str
    python: str
    date: str


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time so far, in seconds.

    Attributes:
        busy: Of everything on the machine, other guests of its host included.
        total: That there was, idle or not.
        own: Of this process and its children that have ended.
    """

    busy: float
    total: float
    own: float


def describe() -> Machine:
    """This machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        cpu=_cpu_model(),
        cpus=usable_cpus(),
        memory_gib=round(pages / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def cpu_times() -> CpuTimes:
    """The clocks as they stand."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    # The last two are already in those of users.
    fields = [int(field) / TICKS_PER_S for field in first.split()[1:9]]
    idle = sum(fields[i] for i in IDLE_FIELDS)
    usages = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return CpuTimes(sum(fields) - idle, sum(fields), own)


def foreign_share(before: CpuTimes, after: CpuTimes, contender_s: float) -> float:
    """How much of the CPU time between two readings was neither ours nor the contender's.

    Args:
        before: The first reading.
        after: The second.
        contender_s: CPU time of the contender between them, in seconds.

    Returns:
        0 to 1; the clocks tick in hundredths of a second, which a short time feels.
    """
    others = after.busy - before.busy - (after.own - before.own) - contender_s
    return min(1.0, max(0.0, others / max(after.total - before.total, 1e-9)))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
