"""Batches on several slots, of one process or of two that share the CPUs."""

import asyncio
import time
from pathlib import Path

import pytest

from service.errors import ModelFailedError
from service.queue.cpu_sharing import WorkerLoads
from support.batcher_bench import Bench, image, on_bench
from support.engines import FakeEngine


def wide_engine() -> FakeEngine:
    """An engine that runs single images on the CPUs of one, two or four slots."""
    engine = FakeEngine(max_batch=1)
    engine.spans = (1, 2, 4)
    return engine


@pytest.mark.parametrize(("images", "spans"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 2]), (4, [1] * 4)])
def test_free_slots_work_together_on_few_images(images: int, spans: list[int]) -> None:
    async def body(bench: Bench) -> None:
        bench.engine.gate.clear()
        tasks = await bench.submit_all(*(image() for _ in range(images)))
        for _ in range(images):
            await bench.engine_started()
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        # Their threads begin in any order.
        assert sorted(bench.engine.ran_with) == spans

    on_bench(body, wide_engine(), instances=4)


def test_an_image_leaves_slots_to_images_that_are_being_decoded() -> None:
    async def body(bench: Bench) -> None:
        with bench.admission.admit_image():
            await bench.infer(image())
        await bench.infer(image())
        assert bench.engine.ran_with == [2, 4]

    on_bench(body, wide_engine(), instances=4)


def test_nothing_runs_beside_a_batch_that_has_every_slot() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(image(), image())
        assert bench.engine.batches == []
        bench.engine.gate.set()
        await asyncio.gather(held, *tasks)
        assert bench.engine.ran_with == [4, 1, 1]

    on_bench(body, wide_engine(), instances=4)


def test_two_clients_that_take_turns_come_to_run_side_by_side() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        (second,) = await bench.submit_all(image())
        bench.engine.gate.set()
        await asyncio.gather(held, second)
        await bench.infer(image())
        assert bench.engine.ran_with == [4, 2, 4]

    on_bench(body, wide_engine(), instances=4)


def test_busy_seconds_count_every_slot_that_a_batch_uses() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        began = time.monotonic()
        await asyncio.sleep(0.05)
        waited = time.monotonic() - began
        bench.engine.gate.set()
        await held
        assert bench.model.queued.metrics.engine_busy._value.get() >= 4 * waited

    on_bench(body, wide_engine(), instances=4)


# Several processes that share the CPUs


class Shared:
    """The loads of the batcher on the bench, and of another process that the test plays."""

    def __init__(self, folder: Path) -> None:
        WorkerLoads.create(folder / "loads", 2)
        self.ours, self.other = (WorkerLoads.attach(folder / "loads", worker) for worker in (0, 1))


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def test_an_image_borrows_the_idle_slots_of_another_process(
    shared: Shared,
) -> None:
    async def body(bench: Bench) -> None:
        await bench.infer(image())
        shared.other.tell_busy(1)
        await bench.infer(image())
        shared.other.tell_busy(2)
        await bench.infer(image())
        assert bench.engine.ran_with == [4, 2, 2]

    on_bench(body, wide_engine(), instances=2, loads=shared.ours)


def test_other_processes_see_how_many_slots_are_in_use(shared: Shared) -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        assert shared.other.busy_elsewhere() == 4
        bench.engine.gate.set()
        await held
        assert shared.other.busy_elsewhere() == 0

    on_bench(body, wide_engine(), instances=2, loads=shared.ours)


@pytest.mark.parametrize(("busy", "at_once"), [(0, 2), (1, 1)])
def test_images_run_side_by_side_in_own_and_borrowed_slots(
    shared: Shared, busy: int, at_once: int
) -> None:
    async def body(bench: Bench) -> None:
        shared.other.tell_busy(busy)
        bench.engine.gate.clear()
        tasks = await bench.submit_all(*(image() for _ in range(4)))
        for _ in range(at_once):
            await bench.engine_started()
        await asyncio.sleep(0.05)
        assert len(bench.engine.batches) == at_once
        # One is prefetched, and holds its permit until it starts.
        assert bench.admission.held == 4 - at_once
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        assert len(bench.engine.batches) == 4
        assert bench.admission.held == 0
        assert shared.other.busy_elsewhere() == 0

    on_bench(body, FakeEngine(max_batch=1), instances=1, prefetch=1, loads=shared.ours)


def test_a_process_always_has_its_own_slots(
    shared: Shared,
) -> None:
    async def body(bench: Bench) -> None:
        shared.other.tell_busy(2)
        await bench.infer(image())
        assert bench.engine.ran_with == [1]

    on_bench(body, FakeEngine(max_batch=1), instances=1, loads=shared.ours)


def test_borrowed_slots_are_given_back_after_a_failure(shared: Shared) -> None:
    async def body(bench: Bench) -> None:
        bench.engine.error = RuntimeError("broken")
        for _ in range(3):
            with pytest.raises(ModelFailedError):
                await bench.infer(image())
        assert bench.engine.ran_with == [4, 4, 4]
        assert shared.other.busy_elsewhere() == 0

    on_bench(body, wide_engine(), instances=2, loads=shared.ours)
