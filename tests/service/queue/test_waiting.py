"""Images that nobody waits for any more, and prefetched ones."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import DeadlineError, QueueFullError
from service.observe.metrics import Metrics
from service.pipeline.batched import NetworkRunner
from service.pipeline.jobs import Job
from service.queue.batcher import Batcher
from service.queue.capacity import Admission, EngineSlots
from support.batcher_bench import FAR, Bench, image, on_bench, prepared, settle
from support.engines import FakeEngine
from support.models import runnable


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


def test_an_image_whose_client_left_leaves_the_queue_at_once() -> None:
    async def body(bench: Bench) -> None:
        await bench.hold()
        tasks = await bench.submit_all(*(image() for _ in range(3)))
        for task in tasks:
            task.cancel()
        await settle()
        assert not bench.batcher._queue
        assert bench.dropped("client-left") == 3

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


def test_a_prefetched_image_that_nobody_waits_for_is_not_run() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        leaver, late, stayer = await bench.submit_all(image(1), image(2), image(3))
        leaver.cancel()
        with contextlib.suppress(TimeoutError):
            # The clock of the request runs out, long before the deadline of the image.
            await asyncio.wait_for(late, 0.01)
        bench.engine.gate.set()
        await asyncio.gather(held, stayer)
        assert bench.engine.batches == [(1, 64, 64, 3)]
        assert bench.dropped("client-left") == 2
        assert bench.admission.held == 0

    on_bench(body, FakeEngine(max_batch=1), prefetch=2)


def test_the_deadline_of_a_prefetched_image_is_enforced() -> None:
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


def test_a_timeout_of_the_runner_is_no_deadline() -> None:
    class Slow(NetworkRunner):
        def run(
            self,
            items: Sequence[Any],
            waited_s: Sequence[float],
            width: int,
        ) -> list[Any]:
            return [TimeoutError("a lock was not free") for _ in items]

    async def main() -> None:
        admission = Admission(1, Metrics())
        slots = EngineSlots(1)
        batcher = Batcher(Slow(), Metrics(), slots=slots, admission=admission)
        batcher.start()
        with admission.admit_image() as permit, pytest.raises(TimeoutError, match="not free"):
            await batcher.run(
                permit, Job(runnable(FakeEngine()), prepared(image())), time.monotonic() + FAR
            )
        await batcher.stop()

    asyncio.run(main())
