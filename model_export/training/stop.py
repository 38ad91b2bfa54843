"""A training that is asked to stop finishes its step first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def made(self) -> bool:
        """Whether it was."""
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Take SIGINT and SIGTERM as requests; a second one acts as it would without this."""
    request = StopRequest()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        for each, handler in former.items():
            signal.signal(each, handler)

    # Python lets the main thread alone set handlers.
    heeds = threading.current_thread() is threading.main_thread()
    if heeds:
        for each in former:
            signal.signal(each, note)
    try:
        yield request
    finally:
        if heeds:
            for each, handler in former.items():
                signal.signal(each, handler)
