"""Work that is handed to threads, and its results."""

import asyncio
import threading
import time
import weakref
from functools import partial

import pytest

from service.queue.threads import ThreadPool, any_at_work


def started_pool(count: int, name: str) -> ThreadPool:
    pool = ThreadPool(count, name)
    pool.start()
    return pool


def test_results_and_errors_come_back() -> None:
    async def main() -> None:
        pool = started_pool(2, "test")
        number, text = pool.submit(lambda: 6 * 7), pool.submit(threading.current_thread)
        failed = pool.submit(lambda: 1 // 0)
        assert await number == 42
        assert (await text).name.startswith("test_")
        with pytest.raises(ZeroDivisionError):
            await failed
        pool.stop()

    asyncio.run(main())


def test_as_many_run_at_once_as_there_are_threads_and_the_rest_in_order() -> None:
    async def main() -> None:
        pool, both, order = started_pool(2, "test"), threading.Barrier(3), list[int]()
        first, second = pool.submit(both.wait), pool.submit(both.wait)
        later = [pool.submit(partial(order.append, number)) for number in range(5)]
        await asyncio.sleep(0.05)
        assert (first.done(), second.done(), order) == (False, False, [])
        both.wait(timeout=10)
        await asyncio.gather(first, second, *later)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert order[0] in {0, 1}
        pool.stop()

    asyncio.run(main())


def test_cancelled_work_is_freed_at_once_and_never_done() -> None:
    class Held:
        """An object that a weak reference can watch."""

    async def main() -> None:
        pool, busy, done = started_pool(1, "test"), threading.Event(), list[object]()
        running = pool.submit(busy.wait)
        held = Held()
        watched = weakref.ref(held)
        waiting = pool.submit(partial(done.append, held))
        del held
        waiting.cancel()
        await asyncio.wait([waiting])
        kept = watched() is not None
        busy.set()
        await running
        await pool.submit(lambda: None)
        pool.stop()
        assert (kept, done) == (False, [])

    asyncio.run(main())


def test_a_thread_whose_work_was_cancelled_goes_on() -> None:
    async def main() -> None:
        pool, busy = started_pool(1, "test"), threading.Event()
        for work in (busy.wait, lambda: busy.wait() / 0):
            busy.clear()
            running = pool.submit(work)
            await asyncio.sleep(0.05)
            running.cancel()
            busy.set()
            assert await pool.submit(lambda: "next") == "next"
        pool.stop()

    asyncio.run(main())


def test_a_thread_outlives_the_loop_that_gave_it_work() -> None:
    pool, busy = started_pool(1, "test"), threading.Event()

    async def leave() -> None:
        pool.submit(busy.wait)

    async def work() -> str:
        return await pool.submit(lambda: "next")

    asyncio.run(leave())
    busy.set()
    assert asyncio.run(work()) == "next"
    pool.stop()


def test_stopped_threads_end_when_no_work_is_left() -> None:
    async def main() -> None:
        pool, busy, done = started_pool(2, "ending"), threading.Event(), list[int]()
        running = [pool.submit(busy.wait), pool.submit(busy.wait)]
        last = pool.submit(partial(done.append, 1))
        pool.stop()
        async with asyncio.timeout(10):
            while not any_at_work():
                await asyncio.sleep(0.01)
        busy.set()
        await asyncio.gather(*running, last)
        assert done == [1]

    asyncio.run(main())
    until = time.monotonic() + 10
    while any(thread.name.startswith("ending") for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
