"""Stopping on SIGINT and SIGTERM, and when time is up: the training finishes its step first."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

# Seconds that a second signal leaves for clearing away.
GRACE_S: Final = 3.0


class StopRequest:
    """Why a training should stop, if it should.

    Args:
        time_limit_s: Seconds from now after which it should; without a limit by default.

    Attributes:
        number: The signal by which this process was asked to stop; 0 if there was none.
    """

    def __init__(self, time_limit_s: float | None = None) -> None:
        self.number = 0
        self._deadline = None if time_limit_s is None else time.monotonic() + time_limit_s

    @property
    def time_is_up(self) -> bool:
        """Whether the time limit has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def made(self) -> bool:
        """Whether a stop was requested."""
        return self.number > 0 or self.time_is_up


@contextmanager
def stop_on_signals(time_limit_s: float | None = None) -> Iterator[StopRequest]:
    """Take SIGINT and SIGTERM as requests; a second one ends the process.

    It does what it would do without this, such as to raise KeyboardInterrupt, so that files in
    memory are cleared away. Where that is lost, as in a callback of the interpreter, the process
    ends by itself `GRACE_S` seconds later.

    Args:
        time_limit_s: Seconds from now after which a stop is requested too.
    """
    request = StopRequest(time_limit_s)
    ends: list[threading.Timer] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        if not request.number:
            request.number = number
            return
        ends.append(_end_soon(number))
        handler = former[signal.Signals(number)]
        signal.signal(number, handler)
        if callable(handler):
            handler(number, frame)
        else:
            signal.raise_signal(number)

    # Python lets only the main thread set handlers.
    can_handle = threading.current_thread() is threading.main_thread()
    if can_handle:
        for each in former:
            signal.signal(each, note)
    try:
        yield request
    finally:
        if can_handle:
            for each, handler in former.items():
                signal.signal(each, handler)
        # An exception that has come so far is not lost.
        for end in ends:
            end.cancel()


def _report_unless_interrupted(lost: "sys.UnraisableHookArgs") -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def _end_soon(number: int) -> threading.Timer:
    """End the process after a while, whatever it is doing, unless the timer is cancelled."""
    sys.unraisablehook = _report_unless_interrupted
    timer = threading.Timer(GRACE_S, os._exit, [128 + number])
    timer.daemon = True
    timer.start()
    return timer
