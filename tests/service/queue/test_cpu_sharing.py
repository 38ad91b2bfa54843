from pathlib import Path

import pytest

from service.queue.cpu_sharing import WorkerLoads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "loads"
    WorkerLoads.create(path, 3)
    return path


def test_each_worker_sees_the_slots_that_the_others_use(path: Path) -> None:
    first, second, third = (WorkerLoads.attach(path, worker) for worker in range(3))
    first.tell_busy(1)
    second.tell_busy(4)
    assert [loads.busy_elsewhere() for loads in (first, second, third)] == [4, 1, 5]
    second.tell_busy(0)
    assert [loads.busy_elsewhere() for loads in (first, second, third)] == [0, 1, 1]
    assert first.workers == 3


def test_only_serving_workers_count_as_takers_of_connections(path: Path) -> None:
    first, second, third = (WorkerLoads.attach(path, worker) for worker in range(3))
    assert first.fewest_connections_elsewhere() is None
    second.tell_connections(5)
    assert first.fewest_connections_elsewhere() == 5
    assert second.fewest_connections_elsewhere() is None
    third.tell_connections(0)
    assert first.fewest_connections_elsewhere() == 0
    third.leave()
    assert first.fewest_connections_elsewhere() == 5


def test_a_dead_worker_uses_nothing_and_takes_no_connections(path: Path) -> None:
    first, second = WorkerLoads.attach(path, 0), WorkerLoads.attach(path, 1)
    second.tell_busy(2)
    second.tell_connections(0)
    WorkerLoads.forget(path, 1)
    assert first.busy_elsewhere() == 0
    assert first.fewest_connections_elsewhere() is None
