"""The control groups that limit this process: where their files are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
OWN_CGROUPS: Final = Path("/proc/self/cgroup")


def limiting_groups(
    controller: str, root: Path = CGROUP_ROOT, own_cgroups: Path = OWN_CGROUPS
) -> Iterator[Path]:
    """The folders of this process's groups and of their parents, the own one first.

    Inside a container the kernel may name groups as the host sees them. Those are not there, and
    the container's own group is the mounted root. So a folder may be missing.

    Args:
        controller: `cpu` or `memory`: the one whose hierarchy of cgroup v1 counts.
        root: Where the cgroup file systems are mounted.
        own_cgroups: The file that names the cgroups of this process.
    """
    for mount, own in _hierarchies(controller, root, own_cgroups):
        for group in (own, *own.parents):
            yield mount / group


def _hierarchies(controller: str, root: Path, own_cgroups: Path) -> Iterator[tuple[Path, Path]]:
    """Where each hierarchy that has the controller is mounted, and this process's group in it."""
    try:
        lines = own_cgroups.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/", f"1:{controller}:/"]:
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        # A group outside of the container's own would begin with "/..".
        own = Path(*(part for part in group.split("/") if part not in {"", ".."}))
        if number == "0" and not controllers:
            yield from ((mount, own) for mount in (root, root / "unified"))
        elif controller in controllers.split(","):
            yield from ((root / name, own) for name in (controller, controllers))
