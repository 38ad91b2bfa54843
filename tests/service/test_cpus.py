"""How many CPUs a process counts on: the container's quota, the affinity, its share of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.cpus import cpus_of_process, usable_cpus

ALLOWED = 16


@pytest.fixture(autouse=True)
def _sixteen_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(ALLOWED)), raising=False)


def quota_v2(root: Path, quota: str, period: int = 100_000) -> None:
    (root / "cpu.max").write_text(f"{quota} {period}\n")


def quota_v1(root: Path, quota: str, period: int = 100_000) -> None:
    (root / "cpu").mkdir()
    (root / "cpu" / "cpu.cfs_quota_us").write_text("-1" if quota == "max" else quota)
    (root / "cpu" / "cpu.cfs_period_us").write_text(str(period))


@pytest.mark.parametrize("write", [quota_v2, quota_v1])
@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [
        ("50000", 100_000, 1),
        ("250000", 100_000, 2),
        ("400000", 100_000, 4),
        ("400000", 50_000, 8),
        ("6400000", 100_000, ALLOWED),
        ("max", 100_000, ALLOWED),
    ],
)
def test_whole_cpus_within_the_quota_are_used(
    tmp_path: Path, write: Callable[[Path, str, int], None], quota: str, period: int, cpus: int
) -> None:
    write(tmp_path, quota, period)
    assert usable_cpus(tmp_path) == cpus


@pytest.mark.parametrize(("workers", "share"), [(1, 6), (2, 3), (4, 1), (12, 1)])
def test_processes_side_by_side_share_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, share: int
) -> None:
    quota_v2(tmp_path, "650000")
    monkeypatch.setattr("service.cpus.usable_cpus", partial(usable_cpus, tmp_path))
    assert cpus_of_process(workers) == share
