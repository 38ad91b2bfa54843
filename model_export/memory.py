"""The memory that this process may still take."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.cgroups import CGROUP_ROOT, OWN_CGROUPS, limiting_groups

MEMINFO: Final = Path("/proc/meminfo")
# Limit and use of a control group's memory in bytes, in both versions of the interface.
FILES: Final = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def available_memory(
    meminfo: Path = MEMINFO, cgroup_root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS
) -> int | None:
    """The bytes that are free on the machine and within the limits of this process's container.

    Args:
        meminfo: The kernel's account of the machine's memory.
        cgroup_root: Where the cgroup file systems are mounted.
        own_cgroups: The file that names the cgroups of this process.

    Returns:
        None on systems that do not say.
    """
    found = [*_of_machine(meminfo), *_of_groups(cgroup_root, own_cgroups)]
    return min(found, default=None)


def amount(number: float) -> str:
    """A number of bytes for a person."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _of_machine(meminfo: Path) -> Iterator[int]:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_groups(root: Path, own_cgroups: Path) -> Iterator[int]:
    for group in limiting_groups("memory", root, own_cgroups):
        for limit, use in FILES:
            bounds = _number(group / limit), _number(group / use)
            if bounds[0] is not None and bounds[1] is not None:
                yield max(0, bounds[0] - bounds[1])


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # there is no such file, or it says `max`
        return None
