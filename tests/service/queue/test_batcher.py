"""How batches are formed and run, and how they end."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DrainingError, ModelFailedError, QueueFullError
from support.batcher_bench import FAR, Bench, Rows, image, on_bench, settle
from support.engines import CONTRACT, FakeEngine


def test_each_image_gets_the_answer_it_gets_alone() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(*(image(value) for value in range(0, 250, 50)))
        bench.engine.gate.set()
        for value, task in zip(range(0, 250, 50), tasks, strict=True):
            expected = bench.engine.rows_of(image(value))
            np.testing.assert_array_equal((await task).result.raw, expected)
        await held
        assert bench.engine.batches == [(5, 64, 64, 3)]

    on_bench(body)


def test_a_batch_is_formed_of_all_that_waits_when_a_slot_becomes_free() -> None:
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


def test_two_free_slots_share_the_waiting_images() -> None:
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


def test_an_engine_error_reaches_every_waiter_and_the_next_batch_works() -> None:
    async def body(bench: Bench) -> None:
        held = await bench.hold()
        tasks = await bench.submit_all(image(), image(), image())
        bench.engine.error = RuntimeError("out of memory")
        bench.engine.gate.set()
        results = await asyncio.gather(held, *tasks, return_exceptions=True)
        assert [type(result) for result in results] == [ModelFailedError] * 4
        assert bench.model.queued.failures_in_a_row == 2
        bench.engine.error = None
        await bench.infer(image())
        assert bench.model.queued.failures_in_a_row == 0

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
        assert isinstance(await held, Rows)

    on_bench(body, Forgetful())


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


def test_stopping_finishes_waiting_images_and_refuses_new_ones() -> None:
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
        assert all(isinstance(result, Rows) for result in results)

    on_bench(body)


def test_an_image_is_told_where_its_time_went() -> None:
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


def test_stopping_waits_for_an_image_that_is_still_being_decoded() -> None:
    async def body(bench: Bench) -> None:
        with bench.admission.admit_image() as permit:
            stopping = asyncio.create_task(bench.batcher.stop())
            await settle()
            assert isinstance(await bench.run(permit, image()), Rows)
        await stopping

    on_bench(body)
