"""How many CPUs a process counts on: the container's quota, the affinity, its share of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.cpus import count_cpus, cpus_of_process, usable_cpus

ALLOWED = 16


@pytest.fixture(autouse=True)
def _sixteen_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(ALLOWED)), raising=False)


def quota_v2(group: Path, quota: str, period: int = 100_000) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(f"{quota} {period}\n")


def quota_v1(group: Path, quota: str, period: int = 100_000) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.cfs_quota_us").write_text("-1" if quota == "max" else quota)
    (group / "cpu.cfs_period_us").write_text(str(period))


class Cgroups:
    """A tree of cgroups, and the file that names the process's own.

    `v2` and `v1` are the mounted roots.
    """

    def __init__(self, folder: Path) -> None:
        self.v2, self.v1 = folder / "cgroup", folder / "cgroup" / "cpu"
        self.v1.mkdir(parents=True)
        self._own = folder / "own"

    def names(self, *lines: str) -> None:
        self._own.write_text("".join(f"{line}\n" for line in lines))

    def cpus(self) -> int:
        return usable_cpus(self.v2, self._own)

    def source(self) -> str:
        return count_cpus(self.v2, self._own).source


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


@pytest.mark.parametrize("version", [2, 1])
@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("50000", 100_000, 1),
        ("10000", 100_000, 1),
        ("120000", 100_000, 1),
        ("150000", 100_000, 2),
        ("250000", 100_000, 3),
        ("240000", 100_000, 2),
        ("400000", 100_000, 4),
        ("400000", 50_000, 8),
        ("6400000", 100_000, ALLOWED),
        ("max", 100_000, ALLOWED),
    ],
)
def test_the_quota_is_used_and_half_a_cpu_counts_as_one(
    cgroups: Cgroups, version: int, quota: str, period: int, cpus: int
) -> None:
    write, group = (quota_v2, cgroups.v2) if version == 2 else (quota_v1, cgroups.v1)
    write(group, quota, period)
    assert cgroups.cpus() == cpus


@pytest.mark.parametrize(
    ("own", "write", "mount"),
    [
        ("0::/kube/pod/own", quota_v2, ""),
        ("0::/kube/pod/own", quota_v2, "unified"),
        ("4:cpu,cpuacct:/kube/pod/own", quota_v1, "cpu,cpuacct"),
        ("4:cpuacct,cpu:/kube/pod/own", quota_v1, "cpu"),
    ],
)
@pytest.mark.parametrize("limited", ["kube/pod/own", "kube/pod", "kube", "."])
def test_the_process_s_own_group_counts_and_so_do_its_parents(
    cgroups: Cgroups, own: str, write: Callable[..., None], mount: str, limited: str
) -> None:
    cgroups.names("9:memory:/elsewhere", own)
    for group in (".", "kube", "kube/pod", "kube/pod/own"):
        write(cgroups.v2 / mount / group, "max")
    write(cgroups.v2 / mount / "kube" / "neighbour", "100000")
    assert cgroups.cpus() == ALLOWED
    write(cgroups.v2 / mount / limited, "300000")
    assert cgroups.cpus() == 3
    assert cgroups.source().startswith("quota of 3 CPUs in ")
    assert str(Path(mount, limited)) in cgroups.source()


def test_the_lowest_of_several_quotas_counts(cgroups: Cgroups) -> None:
    cgroups.names("0::/pod/own")
    quota_v2(cgroups.v2 / "pod", "200000")
    quota_v2(cgroups.v2 / "pod" / "own", "800000")
    assert cgroups.cpus() == 2
    assert cgroups.source() == f"quota of 2 CPUs in {cgroups.v2 / 'pod' / 'cpu.max'}"


@pytest.mark.parametrize("name", ["0::/docker/0123", "0::/../..", "4:cpu:/docker/0123"])
def test_a_group_that_only_the_host_sees_is_the_container_s_root(
    cgroups: Cgroups, name: str
) -> None:
    cgroups.names(name)
    quota_v2(cgroups.v2, "200000")
    assert cgroups.cpus() == 2


def test_without_a_quota_the_affinity_is_told(cgroups: Cgroups) -> None:
    assert (cgroups.cpus(), cgroups.source()) == (ALLOWED, "CPUs that this process may run on")
    quota_v2(cgroups.v2, "9900000")
    assert (cgroups.cpus(), cgroups.source()) == (ALLOWED, "CPUs that this process may run on")


@pytest.mark.parametrize("text", ["", "max", "one 100000", "100000 0"])
def test_a_quota_that_cannot_be_read_is_none(cgroups: Cgroups, text: str) -> None:
    (cgroups.v2 / "cpu.max").write_text(text)
    assert cgroups.cpus() == ALLOWED


@pytest.mark.parametrize(("workers", "share"), [(1, 6), (2, 3), (4, 1), (12, 1)])
def test_processes_side_by_side_share_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, share: int
) -> None:
    quota_v2(tmp_path, "640000")
    monkeypatch.setattr("service.cpus.usable_cpus", partial(usable_cpus, tmp_path))
    assert cpus_of_process(workers) == share
