"""The machine that runs the comparison: its properties, and how busy other programs keep it."""

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.cpus import usable_cpus

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
# The columns of the first line of /proc/stat that mean idle, and waiting for a disk.
IDLE_FIELDS: Final = (3, 4)
# Flags of CPUs that multiply in bfloat16. Engines are chosen by them, and speeds depend on them.
BFLOAT16_FLAGS: Final = ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that the numbers come from.

    Attributes:
        cpu: The CPU's model name, as lscpu has it.
        flags: Which of `BFLOAT16_FLAGS` the CPU has.
        cpus: How many CPUs this process may use.
        memory_gib: Size of the memory.
        system: Kernel and its release.
        python: Version of the interpreter.
        date: Day of the measurement, UTC.
    """

    cpu: str
    flags: tuple[str, ...]
    cpus: int
    memory_gib: float
    system: str
    python: str
    date: str


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """CPU time so far, in seconds.

    Attributes:
        busy: Time in use by any program, or by other guests of the machine's host.
        total: All time, idle or not.
        own: Time that this process and its finished children used.
    """

    busy: float
    total: float
    own: float


def describe() -> Machine:
    """This machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpu, flags = read_cpu(Path("/proc/cpuinfo").read_text())
    return Machine(
        cpu=cpu,
        flags=flags,
        cpus=usable_cpus(),
        memory_gib=round(pages / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def cpu_times() -> CpuTimes:
    """The clocks as they stand."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    # The line's last two fields, time of guests, are part of the first two.
    fields = [int(field) / TICKS_PER_S for field in first.split()[1:9]]
    idle = sum(fields[i] for i in IDLE_FIELDS)
    usages = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return CpuTimes(sum(fields) - idle, sum(fields), own)


def foreign_share(before: CpuTimes, after: CpuTimes, contender_s: float) -> float:
    """The share of CPU time between two readings that neither we nor the contender used.

    Args:
        before: The first reading.
        after: The second.
        contender_s: CPU time of the contender between them, in seconds.

    Returns:
        0 to 1. The clocks tick in hundredths of a second, so short times are inexact.
    """
    others = after.busy - before.busy - (after.own - before.own) - contender_s
    return min(1.0, max(0.0, others / max(after.total - before.total, 1e-9)))


def read_cpu(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """The CPU's model name and those of `BFLOAT16_FLAGS` that it has.

    Args:
        cpuinfo: The content of /proc/cpuinfo.
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = fields.get("flags", "").split()
    model = fields.get("model name") or platform.machine()
    return model, tuple(flag for flag in BFLOAT16_FLAGS if flag in flags)
