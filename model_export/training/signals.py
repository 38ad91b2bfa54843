"""Stopping on SIGINT and SIGTERM: the training finishes its step first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """The signal by which this process was asked to stop; 0 if there was none."""

    def __init__(self) -> None:
        self.number = 0

    @property
    def made(self) -> bool:
        """Whether a stop was requested."""
        return self.number > 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Take SIGINT and SIGTERM as requests; a second one acts as it would without this."""
    request = StopRequest()
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: FrameType | None) -> None:
        request.number = number
        for each, handler in former.items():
            signal.signal(each, handler)

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
