"""A pool of threads that an event loop hands work to."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

END: Final = None
Work = Callable[[], object]


class _Task(asyncio.Future[T]):
    """A piece of work, as the future on an event loop that waits for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        super().__init__()
        self._work: Callable[[], T] | None = work

    def __call__(self) -> None:
        """Do the work on the calling thread, unless it is cancelled."""
        work, self._work = self._work, None
        if work is None:
            return
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - the waiter gets the error, whatever it is
            self._post(self._fail, error)
        else:
            self._post(self._succeed, result)

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ANN401 - the base class's
        """Cancel the work, and free all that it refers to at once, not when its turn comes."""
        self._work = None
        return super().cancel(msg)

    def _post(self, settle: Callable[[Any], None], outcome: T | BaseException) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self.get_loop().call_soon_threadsafe(settle, outcome)

    def _succeed(self, result: T) -> None:
        if not self.done():
            self.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.done():
            self.set_exception(error)


class _Thread(threading.Thread):
    def __init__(self, waiting: "SimpleQueue[Work | None]", name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._waiting = waiting
        self.at_work = False

    def run(self) -> None:
        while (work := self._waiting.get()) is not END:
            self.at_work = True
            work()
            self.at_work = False
            # An idle thread keeps nothing of its last work alive.
            del work
        self._waiting.put(END)


class ThreadPool:
    """Threads that take up work in the order in which it is submitted.

    The standard library's executor does the same in 38 us there and back on one core, this pool in
    27; a request in front of a GPU makes three such trips. A process that ends does not wait for
    these threads.

    Args:
        count: Number of threads.
        name: Name of the threads, to which each adds its number.

    Attributes:
        post: Has a thread do some work that tells its outcome by itself, and raises nothing.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self.post: Callable[[Work], None] = self._waiting.put

    def start(self) -> None:
        """Start the threads."""
        for number in range(self._count):
            _Thread(self._waiting, f"{self._name}_{number}").start()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have a thread do some work.

        Args:
            work: Called once on one of the threads, or never if the future is cancelled before.

        Returns:
            A future of the running event loop, with what the work returns or raises.
        """
        task = _Task(work)
        self._waiting.put(task)
        return task

    def stop(self) -> None:
        """Let each thread end as soon as no work is left. Does not wait for them."""
        self._waiting.put(END)


def any_at_work() -> bool:
    """Whether a thread of any pool is doing some work, so that the interpreter cannot exit cleanly.

    An idle thread can be left behind. A thread in native code would return to an interpreter that
    is gone, and crash the process.
    """
    return any(isinstance(thread, _Thread) and thread.at_work for thread in threading.enumerate())
