"""Which input sizes are compiled for themselves, and how many copies: what a crowd sends most."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import structlog

Model = TypeVar("Model")
Size = tuple[int, int]

# Calls of a size, under load, after which it is worth the quarter second that compiling takes. As
# many calls have to find all copies busy before another one is made.
CALLS_UNTIL_COMPILED: Final = 32
# A size takes another's place once it is called this many times as often.
TIMES_AS_OFTEN: Final = 4
# A copy more is worth its memory where at least one call in eight finds the others busy.
ONE_BUSY_CALL_IN: Final = 8
# Calls after which all counts are halved, so that new habits replace old ones.
CALLS_UNTIL_HALVED: Final = 4096

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Copies(Generic[Model]):
    """The copies of one size's model.

    Attributes:
        idle: Those that no call is using.
        count: All of them.
        calls_that_met_none: Calls that found all copies busy since the last one was added.
    """

    idle: list[Model]
    count: int = 1
    calls_that_met_none: int = 0


class NarrowSizes(Generic[Model]):
    """Models for single input sizes, compiled on a thread while calls go on. Safe on any thread.

    A model runs one call at a time: a call takes one, and gives it back.

    Args:
        most: Most sizes at once; none are compiled where it is 0.
        most_copies: Most models of one size.
        compile_for: Gives a model of one (height, width) in pixels.
    """

    def __init__(self, most: int, most_copies: int, compile_for: Callable[[Size], Model]) -> None:
        self._most = most
        self._most_copies = most_copies
        self._compile_for = compile_for
        self._lock = threading.Lock()
        self._calls: Counter[Size] = Counter()
        self._copies: dict[Size, _Copies[Model]] = {}
        self._failed: set[Size] = set()
        self._thread: threading.Thread | None = None

    def take(self, size: Size) -> Model | None:
        """Count a call of this size; gives it a model, if one is idle."""
        if self._most == 0:
            return None
        with self._lock:
            self._count(size)
            copies = self._copies.get(size)
            if copies is not None:
                if copies.idle:
                    return copies.idle.pop()
                copies.calls_that_met_none += 1
            if self._thread is None and size not in self._failed and self._is_worth_it(size):
                # No daemon: a process cannot end well while a thread compiles.
                self._thread = threading.Thread(target=self._compile, args=(size,))
                self._thread.start()
        return None

    def give_back(self, size: Size, model: Model) -> None:
        """Return a model that `take` gave; it is dropped if its size has lost its place."""
        with self._lock:
            copies = self._copies.get(size)
            if copies is not None and len(copies.idle) < copies.count:
                copies.idle.append(model)

    def wait(self) -> None:
        """Wait until nothing is being compiled."""
        if self._thread is not None:
            self._thread.join()

    def _count(self, size: Size) -> None:
        self._calls[size] += 1
        if self._calls.total() >= CALLS_UNTIL_HALVED:
            self._calls = Counter({size: calls // 2 for size, calls in self._calls.items()})
            for copies in self._copies.values():
                copies.calls_that_met_none //= 2

    def _is_worth_it(self, size: Size) -> bool:
        calls = self._calls[size]
        copies = self._copies.get(size)
        if copies is not None:
            missed = copies.calls_that_met_none
            often = missed >= CALLS_UNTIL_COMPILED and missed * ONE_BUSY_CALL_IN >= calls
            return often and copies.count < self._most_copies
        if calls < CALLS_UNTIL_COMPILED:
            return False
        return len(self._copies) < self._most or calls > TIMES_AS_OFTEN * self._calls[self._rarest]

    @property
    def _rarest(self) -> Size:
        return min(self._copies, key=lambda size: self._calls[size])

    def _compile(self, size: Size) -> None:
        try:
            model = self._compile_for(size)
        except Exception:
            log.exception("input size not compiled", height=size[0], width=size[1])
            with self._lock:
                self._failed.add(size)
                self._thread = None
            return
        with self._lock:
            count = self._add(size, model)
            self._thread = None
        log.info(
            "input size compiled",
            height=size[0],
            width=size[1],
            copies=count,
            sizes=len(self._copies),
        )

    def _add(self, size: Size, model: Model) -> int:
        """Keep a new model; gives the number of its size's copies."""
        copies = self._copies.get(size)
        if copies is None:
            if len(self._copies) >= self._most:
                del self._copies[self._rarest]
            self._copies[size] = _Copies([model])
            return 1
        copies.idle.append(model)
        copies.count += 1
        copies.calls_that_met_none = 0
        return copies.count
