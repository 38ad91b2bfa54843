"""SIGHUP: it never ends a process; a server that runs reads again what may have changed."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType


def hold_hangups() -> None:
    """Keep SIGHUP waiting in this thread, and in all threads and processes that it starts."""
    if hasattr(signal, "SIGHUP"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


@contextmanager
def hangups_held() -> Iterator[None]:
    """Hold SIGHUP meanwhile, so that a process that is started here begins by holding it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release_hangups() -> None:
    """Let a SIGHUP through, also one that came while it was held; it needs a handler by now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def reload_at_hangup(reload: Callable[[], None]) -> None:
    """Have the running event loop call a function after each SIGHUP, one that was held included."""
    if not hasattr(signal, "SIGHUP"):
        return
    loop = asyncio.get_running_loop()

    def soon(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's
        # A handler may have interrupted anything, even the writing of a log line.
        with suppress(RuntimeError):  # the loop has ended, and the process is about to
            loop.call_soon_threadsafe(reload)

    signal.signal(signal.SIGHUP, soon)
    release_hangups()
