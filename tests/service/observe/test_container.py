"""The container's limits in the metrics, for both versions of control groups."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.observe.container import ContainerCollector

MIB = 2**20


class Machine:
    """A tree of control groups, with this process in one of them."""

    def __init__(self, folder: Path, own: str) -> None:
        self.root, self._own = folder / "cgroup", folder / "own"
        self._own.write_text(own + "\n")

    def write(self, **texts: str) -> None:
        """Write files of a group: `name=text`, with `__` for a slash and `_dot_` for a dot."""
        for name, text in texts.items():
            path = self.root / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def value(self, name: str) -> float | None:
        registry = CollectorRegistry()
        registry.register(ContainerCollector(self.root, self._own))
        return registry.get_sample_value(f"yolox_container_{name}")


def test_memory_of_version_2_is_told_without_page_cache_that_can_go(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/")
    machine.write(
        memory_dot_max=f"{100 * MIB}\n",
        memory_dot_current=f"{90 * MIB}\n",
        memory_dot_stat=f"anon 5\ninactive_file {20 * MIB}\n",
    )
    assert machine.value("memory_limit_bytes") == 100 * MIB
    assert machine.value("memory_used_bytes") == 70 * MIB


def test_memory_of_version_1_is_told_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/pod")
    machine.write(
        memory__pod__memory_dot_limit_in_bytes=f"{100 * MIB}\n",
        memory__pod__memory_dot_usage_in_bytes=f"{90 * MIB}\n",
        memory__pod__memory_dot_stat=f"inactive_file 1\ntotal_inactive_file {30 * MIB}\n",
    )
    assert machine.value("memory_limit_bytes") == 100 * MIB
    assert machine.value("memory_used_bytes") == 60 * MIB


def test_the_lowest_limit_of_the_group_and_its_parents_counts(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/pod/container")
    machine.write(
        pod__memory_dot_max=f"{50 * MIB}",
        pod__memory_dot_current=f"{40 * MIB}",
        pod__container__memory_dot_max=f"{100 * MIB}",
        pod__container__memory_dot_current=f"{10 * MIB}",
    )
    assert machine.value("memory_limit_bytes") == 50 * MIB
    assert machine.value("memory_used_bytes") == 40 * MIB


@pytest.mark.parametrize(
    "files",
    [
        {"memory_dot_max": "max\n", "memory_dot_current": "5"},
        {"memory__memory_dot_limit_in_bytes": "9223372036854771712"},
        {"memory_dot_max": "no number"},
        {},
    ],
)
def test_without_a_limit_there_are_no_values(tmp_path: Path, files: dict[str, str]) -> None:
    machine = Machine(tmp_path, "0::/")
    machine.write(**files)
    assert machine.value("memory_limit_bytes") is None
    assert machine.value("memory_used_bytes") is None


def test_throttling_is_that_of_the_group_with_the_quota(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/pod/container")
    machine.write(
        pod__container__cpu_dot_stat="usage_usec 7\n",
        pod__cpu_dot_stat="usage_usec 9\nnr_periods 40\nnr_throttled 10\nthrottled_usec 5\n",
    )
    assert machine.value("cpu_periods_total") == 40
    assert machine.value("cpu_throttled_periods_total") == 10


def test_without_a_quota_nothing_is_throttled_and_nothing_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/")
    machine.write(cpu_dot_stat="usage_usec 9\nnr_periods 0\nnr_throttled 0\n")
    assert machine.value("cpu_periods_total") is None
    assert machine.value("cpu_throttled_periods_total") is None
