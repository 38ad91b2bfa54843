"""Slots of one process, and those that it borrows from another."""

from pathlib import Path

import pytest

from service.queue.capacity import EngineSlots, SlotLease
from service.queue.cpu_sharing import WorkerLoads


@pytest.fixture
def other(tmp_path: Path) -> WorkerLoads:
    WorkerLoads.create(tmp_path / "loads", 2)
    return WorkerLoads.attach(tmp_path / "loads", 1)


@pytest.fixture
def shared(tmp_path: Path, other: WorkerLoads) -> EngineSlots:
    """Four slots beside the four of another process."""
    return EngineSlots(4, (1, 2, 4, 8), WorkerLoads.attach(tmp_path / "loads", 0))


@pytest.mark.parametrize(("sharers", "width"), [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_a_lease_leaves_as_many_slots_to_each_other_sharer(sharers: int, width: int) -> None:
    assert EngineSlots(4, (1, 2, 4)).lease(sharers) == SlotLease(width, own=width)


def test_no_lease_is_given_while_every_slot_is_used() -> None:
    slots = EngineSlots(2, (1, 2))
    lease = slots.lease(1)
    assert lease == SlotLease(width=2, own=2)
    assert (slots.available(), slots.lease(1)) == (0, None)
    slots.release(lease)
    assert slots.available() == 2


def test_own_slots_come_before_borrowed_ones(shared: EngineSlots, other: WorkerLoads) -> None:
    assert shared.lease(2) == SlotLease(width=4, own=4)
    assert shared.lease(2) == SlotLease(width=2, own=0)
    assert other.busy_elsewhere() == 6


def test_a_process_that_is_busy_lends_nothing(shared: EngineSlots, other: WorkerLoads) -> None:
    other.tell_busy(4)
    assert shared.lease(1) == SlotLease(width=4, own=4)
    assert shared.lease(1) is None


def test_released_slots_can_be_borrowed_again(shared: EngineSlots, other: WorkerLoads) -> None:
    lease = shared.lease(1)
    assert lease == SlotLease(width=8, own=4)
    assert shared.wide_leases == 1
    shared.release(lease)
    assert (shared.available(), shared.free, shared.wide_leases) == (8, 4, 0)
    assert other.busy_elsewhere() == 0
