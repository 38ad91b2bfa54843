import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DeadlineError, DrainingError, ModelFailedError, QueueFullError
from service.observe.metrics import Metrics
from service.pipeline.batched import NetworkRunner
from service.queue.admission import Admission
from service.queue.batcher import Batcher
from service.queue.cpu_sharing import WorkerLoads
from service.queue.runner import Outcome
from service.queue.slots import EngineSlots
from support.engines import CONTRACT, FakeEngine

Rows = Outcome[NDArray[np.floating]]

FAR = 60.0


def image(value: int = 0, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, dtype=np.uint8)


class Bench:
    """A running batcher with everything a test wants to look at."""

    def __init__(
        self,
        engine: FakeEngine,
        *,
        instances: int = 1,
        loads: WorkerLoads | None = None,
        max_queue_images: int = 64,
        **options: Any,
    ) -> None:
        self.metrics = Metrics()
        self.admission = Admission(max_queue_images, self.metrics)
        slots = EngineSlots(instances, engine.spans, loads)
        self.batcher = Batcher(
            NetworkRunner(engine), self.metrics, slots=slots, admission=self.admission, **options
        )
        self.engine = engine

    async def infer(self, tensor: NDArray[np.uint8], seconds: float = FAR) -> Rows:
        with self.admission.admit_image() as permit:
            return await self.batcher.run(permit, tensor, time.monotonic() + seconds)

    def submit(self, tensor: NDArray[np.uint8], seconds: float = FAR) -> asyncio.Task[Rows]:
        return asyncio.create_task(self.infer(tensor, seconds))

    async def submit_all(self, *tensors: NDArray[np.uint8]) -> list[asyncio.Task[Rows]]:
        tasks = [self.submit(tensor) for tensor in tensors]
        await settle()
        return tasks

    async def engine_started(self) -> None:
        assert await asyncio.to_thread(self.engine.started.acquire, timeout=10)

    async def hold(self) -> asyncio.Task[Rows]:
        """Keep the (one) engine busy until its gate opens."""
        self.engine.gate.clear()
        task = self.submit(image())
        await self.engine_started()
        self.engine.batches.clear()
        return task

    def dropped(self, reason: str) -> float:
        return self.metrics.rejections.labels(f"dropped-{reason}")._value.get()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(engine: FakeEngine, **options: Any) -> AsyncIterator[Bench]:
    bench = Bench(engine, **options)
    bench.batcher.start()
    try:
        yield bench
    finally:
        engine.gate.set()
        await bench.batcher.stop()


def on_bench(
    test: Callable[[Bench], Awaitable[None]],
    engine: FakeEngine | None = None,
    **options: Any,
) -> None:
    async def main() -> None:
        async with running(engine or FakeEngine(), **options) as bench:
            await test(bench)

    asyncio.run(main())


def test_each_image_gets_the_answer_it_gets_alone() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(*(image(value) for value in range(0, 250, 50)))
        bench.engine.gate.set()
        for value, task in zip(range(0, 250, 50), tasks, strict=True):
            expected = bench.engine.rows_of(image(value))
            np.testing.assert_array_equal((await task).result, expected)
        await held
        assert bench.engine.batches == [(5, 64, 64, 3)]

    on_bench(body)


def test_a_batch_is_formed_when_the_engine_is_free_from_all_that_waits_then() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        first = await bench.submit_all(image(1))
        second = await bench.submit_all(image(2), image(3))
        bench.engine.gate.set()
        await asyncio.gather(*first, *second)
        assert bench.engine.batches == [(3, 64, 64, 3)]

    on_bench(body)


def test_a_lone_image_does_not_wait_for_company() -> None:
    async def body(bench: Bench) -> None:
        inference = await bench.infer(image())
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert inference.queue_s < 5

    on_bench(body)


def test_a_batch_is_no_larger_than_the_engine_allows() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        tasks = await bench.submit_all(*(image() for _ in range(5)))
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        assert [shape[0] for shape in bench.engine.batches] == [2, 2, 1]

    on_bench(body, FakeEngine(max_batch=2))


def test_two_idle_instances_share_what_waits() -> None:
    async def body(bench: Bench) -> None:
        await settle()
        bench.engine.gate.clear()
        tasks = [bench.submit(image()) for _ in range(6)]
        await bench.engine_started()
        await bench.engine_started()
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        assert [shape[0] for shape in bench.engine.batches] == [3, 3]

    on_bench(body, instances=2)


def wide_engine() -> FakeEngine:
    """One whose calls can use one, two or four instances' CPUs, an image at a time."""
    engine = FakeEngine(max_batch=1)
    engine.spans = (1, 2, 4)
    return engine


@pytest.mark.parametrize(("images", "spans"), [(1, [4]), (2, [2, 2]), (3, [1, 1, 2]), (4, [1] * 4)])
def test_idle_instances_work_together_on_what_few_images_there_are(
    images: int, spans: list[int]
) -> None:
    async def body(bench: Bench) -> None:
        bench.engine.gate.clear()
        tasks = await bench.submit_all(*(image() for _ in range(images)))
        for _ in range(images):
            await bench.engine_started()
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        assert bench.engine.ran_with == spans

    on_bench(body, wide_engine(), instances=4)


def test_an_image_gets_no_more_than_those_still_being_decoded_leave_it() -> None:
    async def body(bench: Bench) -> None:
        with bench.admission.admit_image():
            await bench.infer(image())
        await bench.infer(image())
        assert bench.engine.ran_with == [2, 4]

    on_bench(body, wide_engine(), instances=4)


def test_nothing_runs_beside_a_batch_that_has_every_instance() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(image(), image())
        assert bench.engine.batches == []
        bench.engine.gate.set()
        await asyncio.gather(held, *tasks)
        assert bench.engine.ran_with == [4, 1, 1]

    on_bench(body, wide_engine(), instances=4)


def test_two_clients_who_take_turns_come_to_run_side_by_side() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        (second,) = await bench.submit_all(image())
        bench.engine.gate.set()
        await asyncio.gather(held, second)
        await bench.infer(image())
        assert bench.engine.ran_with == [4, 2, 4]

    on_bench(body, wide_engine(), instances=4)


def test_busy_seconds_count_every_instance_that_a_batch_uses() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        began = time.monotonic()
        await asyncio.sleep(0.05)
        waited = time.monotonic() - began
        bench.engine.gate.set()
        await held
        assert bench.metrics.engine_busy._value.get() >= 4 * waited

    on_bench(body, wide_engine(), instances=4)


def test_images_of_one_batch_have_one_shape_and_the_oldest_goes_first() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        tasks = await bench.submit_all(
            image(), image(width=32), image(), image(width=32), image(width=32), image()
        )
        bench.engine.gate.set()
        await asyncio.gather(*tasks)
        assert bench.engine.batches == [(3, 64, 64, 3), (3, 64, 32, 3)]

    on_bench(body)


def test_a_rare_shape_does_not_starve_behind_a_steady_stream() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        await bench.submit_all(image(), image())
        rare = bench.submit(image(width=32))
        await settle()
        await bench.submit_all(*(image() for _ in range(6)))
        bench.engine.gate.set()
        await rare
        assert bench.engine.batches[1][2] == 32

    on_bench(body, FakeEngine(max_batch=2))


def test_full_queue_refuses_at_once_and_disturbs_nothing_else() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        tasks = await bench.submit_all(image(1), image(2))
        with pytest.raises(QueueFullError) as refusal:
            bench.admission.admit_image()
        assert int(refusal.value.headers["Retry-After"]) >= 1
        bench.engine.gate.set()
        assert len(await asyncio.gather(*tasks)) == 2
        await bench.infer(image())

    on_bench(body, max_queue_images=2)


def test_a_permit_is_released_when_its_image_fails_before_the_queue() -> None:
    async def body(bench: Bench) -> None:
        for _ in range(3):
            with contextlib.suppress(ValueError), bench.admission.admit_image():
                raise ValueError("cannot be decoded")
        assert bench.metrics.queue_images._value.get() == 0
        await bench.infer(image())

    on_bench(body, max_queue_images=1)


def test_permits_that_are_held_can_be_seen() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        await bench.submit_all(image(), image())
        assert bench.metrics.queue_images._value.get() == 2
        bench.engine.gate.set()

    on_bench(body)


def test_an_image_whose_client_left_is_not_run() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        leaver, stayer = await bench.submit_all(image(1), image(2))
        leaver.cancel()
        await settle()
        bench.engine.gate.set()
        await asyncio.gather(held, stayer)
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert bench.dropped("client-left") == 1

    on_bench(body)


def test_an_image_whose_deadline_passed_is_not_run() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        late = bench.submit(image(1), seconds=-1)
        in_time = bench.submit(image(2))
        await settle()
        bench.engine.gate.set()
        with pytest.raises(DeadlineError):
            await late
        await in_time
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert bench.dropped("deadline-passed") == 1

    on_bench(body)


def test_a_deadline_is_enforced_by_the_queue_alone_while_every_slot_is_busy() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        async with asyncio.timeout(10):
            with pytest.raises(DeadlineError):
                await bench.infer(image(1), seconds=0.02)
        assert not held.done()
        assert not bench.batcher._queue
        assert bench.admission.held == 0
        assert bench.dropped("deadline-passed") == 1

    on_bench(body)


def test_a_deadline_is_enforced_while_the_image_runs() -> None:
    async def body(bench: Bench) -> None:
        bench.engine.gate.clear()
        async with asyncio.timeout(10):
            with pytest.raises(DeadlineError):
                await bench.infer(image(), seconds=0.05)
        assert bench.dropped("deadline-passed") == 0
        bench.engine.gate.set()
        await bench.infer(image())

    on_bench(body)


def test_an_image_whose_deadline_passed_takes_no_room_in_a_batch() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        late = bench.submit(image(), seconds=-1)
        in_time = await bench.submit_all(image(), image())
        bench.engine.gate.set()
        await asyncio.gather(held, *in_time)
        assert isinstance(late.exception(), DeadlineError)
        assert bench.engine.batches == [(2, 64, 64, 3)]

    on_bench(body, FakeEngine(max_batch=2))


def test_an_idle_slot_does_not_run_an_image_whose_deadline_passed() -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(DeadlineError):
            await bench.infer(image(), seconds=-1)
        await bench.infer(image())
        assert bench.engine.batches == [(1, 64, 64, 3)]

    on_bench(body)


def test_a_prefetched_image_holds_its_permit_until_it_starts() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        (next_one,) = await bench.submit_all(image(1))
        assert bench.admission.held == 1
        with pytest.raises(QueueFullError):
            await bench.infer(image(2))
        bench.engine.gate.set()
        await held
        await settle()
        assert bench.admission.held == 0
        await next_one

    on_bench(body, prefetch=1, max_queue_images=1)


def test_what_nobody_waits_for_is_not_run_even_if_it_was_prefetched() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        leaver, late, stayer = await bench.submit_all(image(1), image(2), image(3))
        leaver.cancel()
        with contextlib.suppress(TimeoutError):
            # As a request's clock does it; its own deadline is not what this image waits for.
            await asyncio.wait_for(late, 0.01)
        bench.engine.gate.set()
        await asyncio.gather(held, stayer)
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert bench.dropped("client-left") == 2
        assert bench.admission.held == 0

    on_bench(body, FakeEngine(max_batch=1), prefetch=2)


def test_a_deadline_that_passes_after_an_image_was_prefetched_is_enforced() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        late = bench.submit(image(1), seconds=0.05)
        await settle()
        await asyncio.sleep(0.06)
        bench.engine.gate.set()
        with pytest.raises(DeadlineError):
            await late
        await held
        # By the time another image is done, the thread has said what it left out.
        await bench.infer(image(2))
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert bench.dropped("deadline-passed") == 1

    on_bench(body, prefetch=1)


def test_an_engine_error_reaches_every_waiter_and_the_next_batch_works() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(image(), image(), image())
        bench.engine.error = RuntimeError("out of memory")
        bench.engine.gate.set()
        results = await asyncio.gather(held, *tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ModelFailedError] * 4
        assert bench.batcher.failures_in_a_row == 2
        bench.engine.error = None
        await bench.infer(image())
        assert bench.batcher.failures_in_a_row == 0

    on_bench(body)


def test_an_engine_that_loses_a_row_fails_its_batch_only() -> None:
    class Forgetful(FakeEngine):
        def infer(self, images: Sequence[NDArray[np.uint8]], span: int = 1) -> NDArray[np.floating]:
            rows = super().infer(images, span)
            return rows[:-1] if len(images) > 1 else rows

    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(image(), image())
        bench.engine.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ModelFailedError] * 2
        assert isinstance(await held, Outcome)

    on_bench(body, Forgetful())


def test_a_timeout_of_the_runner_is_no_deadline() -> None:
    class Slow(NetworkRunner):
        def run(self, items: Sequence[Any], width: int) -> list[Any]:
            return [TimeoutError("a lock was not free") for _ in items]

    async def main() -> None:
        admission = Admission(1, Metrics())
        slots = EngineSlots(1)
        batcher = Batcher(Slow(FakeEngine()), Metrics(), slots=slots, admission=admission)
        batcher.start()
        with admission.admit_image() as permit, pytest.raises(TimeoutError, match="not free"):
            await batcher.run(permit, image(), time.monotonic() + FAR)
        await batcher.stop()

    asyncio.run(main())


def test_a_delay_lets_a_batch_fill_and_a_full_one_goes_at_once() -> None:
    async def body(bench: Bench) -> None:
        tasks = await bench.submit_all(image(), image())
        assert bench.engine.batches == []
        tasks += await bench.submit_all(image())
        await asyncio.gather(*tasks)
        assert bench.engine.batches == [(3, 64, 64, 3)]

    on_bench(body, FakeEngine(max_batch=3), max_batch_delay_s=FAR)


def test_a_delay_is_waited_for() -> None:
    async def body(bench: Bench) -> None:
        inference = await bench.infer(image())
        assert inference.queue_s >= 0.05

    on_bench(body, max_batch_delay_s=0.05)


def test_a_delay_counts_from_the_oldest_image(monkeypatch: pytest.MonkeyPatch) -> None:
    real, skipped = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: real() + skipped)

    async def body(bench: Bench) -> None:
        nonlocal skipped
        tasks = await bench.submit_all(image())
        skipped = 20.0
        tasks += await bench.submit_all(image())
        assert len(bench.batcher._queue) == 2
        skipped = 30.0
        await settle()
        assert not bench.batcher._queue
        await asyncio.gather(*tasks)
        assert bench.engine.batches == [(2, 64, 64, 3)]

    on_bench(body, max_batch_delay_s=30.0)


def test_stopping_finishes_what_waits_and_refuses_the_rest() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(*(image() for _ in range(20)))
        stopping = asyncio.create_task(bench.batcher.stop())
        await settle()
        with pytest.raises(DrainingError):
            bench.admission.admit_image()
        assert not stopping.done()
        bench.engine.gate.set()
        await stopping
        results = await asyncio.gather(held, *tasks)
        assert all(isinstance(result, Outcome) for result in results)

    on_bench(body)


def test_times_of_an_image_are_those_it_spent() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        (task,) = await bench.submit_all(image())
        await asyncio.sleep(0.05)
        bench.engine.gate.set()
        inference = await task
        assert inference.queue_s >= 0.05
        assert inference.run_s >= 0

    on_bench(body)


def test_contract_of_the_fake_engine_is_honest() -> None:
    """The fake's rows have the shape that its contract promises."""
    rows = FakeEngine().rows_of(image(width=96))
    assert rows.shape == (CONTRACT.num_cells(64, 96), CONTRACT.output_channels)


def test_what_left_the_queue_is_let_go_of_while_the_engine_still_works() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        tasks = await bench.submit_all(*(image() for _ in range(3)))
        for task in tasks:
            task.cancel()
        await settle()
        assert not bench.batcher._queue
        assert bench.dropped("client-left") == 3

    on_bench(body)


def test_stopping_waits_for_an_image_that_is_still_being_decoded() -> None:
    async def body(bench: Bench) -> None:
        with bench.admission.admit_image() as permit:
            stopping = asyncio.create_task(bench.batcher.stop())
            await settle()
            deadline = time.monotonic() + FAR
            assert isinstance(await bench.batcher.run(permit, image(), deadline), Outcome)
        await stopping

    on_bench(body)


# Several processes that share the CPUs


class Shared:
    """The loads of a batcher on the bench and of another process, which a test plays."""

    def __init__(self, folder: Path) -> None:
        WorkerLoads.create(folder / "loads", 2)
        self.ours, self.other = (WorkerLoads.attach(folder / "loads", worker) for worker in (0, 1))


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return Shared(tmp_path)


def test_an_image_gets_the_instances_of_another_process_too_while_those_are_idle(
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


def test_the_other_process_hears_how_many_instances_are_in_use(shared: Shared) -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        assert shared.other.busy_elsewhere() == 4
        bench.engine.gate.set()
        await held
        assert shared.other.busy_elsewhere() == 0

    on_bench(body, wide_engine(), instances=2, loads=shared.ours)


@pytest.mark.parametrize(("busy", "at_once"), [(0, 2), (1, 1)])
def test_images_run_beside_each_other_on_what_another_process_leaves_idle(
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


def test_what_another_process_uses_keeps_no_image_from_this_ones_own_instances(
    shared: Shared,
) -> None:
    async def body(bench: Bench) -> None:
        shared.other.tell_busy(2)
        await bench.infer(image())
        assert bench.engine.ran_with == [1]

    on_bench(body, FakeEngine(max_batch=1), instances=1, loads=shared.ours)


def test_what_is_borrowed_is_given_back_after_a_failure(shared: Shared) -> None:
    async def body(bench: Bench) -> None:
        bench.engine.error = RuntimeError("broken")
        for _ in range(3):
            with pytest.raises(ModelFailedError):
                await bench.infer(image())
        assert bench.engine.ran_with == [4, 4, 4]
        assert shared.other.busy_elsewhere() == 0

    on_bench(body, wide_engine(), instances=2, loads=shared.ours)
