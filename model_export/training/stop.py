"""A training that is asked to stop finishes its step first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether this process was asked to stop, and by which signal; 0 for none."""

    def __init__(self) -> None:
        self.number = 0

    @property
    def made(self) -> bool:
        """Whether it was."""
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
