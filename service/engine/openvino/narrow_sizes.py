"""Which input sizes are compiled for themselves: those that a crowd sends most."""

import threading
from collections import Counter
from collections.abc import Callable
from typing import Final, Generic, TypeVar

import structlog

Model = TypeVar("Model")
Size = tuple[int, int]

# Calls of a size, under load, after which it is worth the half second that compiling takes.
CALLS_UNTIL_COMPILED: Final = 32
# A size takes another's place once it is called this many times as often.
TIMES_AS_OFTEN: Final = 4
# Calls after which all counts are halved, so that new habits replace old ones.
CALLS_UNTIL_HALVED: Final = 4096

log = structlog.get_logger(__name__)


class NarrowSizes(Generic[Model]):
    """Models for single input sizes, compiled on a thread while calls go on. Safe on any thread.

    Args:
        most: Most sizes at once; none are compiled where it is 0.
        compile_for: Gives the model of one (height, width) in pixels.
    """

    def __init__(self, most: int, compile_for: Callable[[Size], Model]) -> None:
        self._most = most
        self._compile_for = compile_for
        self._lock = threading.Lock()
        self._calls: Counter[Size] = Counter()
        self._models: dict[Size, Model] = {}
        self._failed: set[Size] = set()
        self._thread: threading.Thread | None = None

    def find(self, size: Size) -> Model | None:
        """Count a call of this size; gives its model, if there is one by now."""
        if self._most == 0:
            return None
        with self._lock:
            self._count(size)
            model = self._models.get(size)
            if model is None and self._is_worth_it(size):
                # No daemon: a process cannot end well while a thread compiles.
                self._thread = threading.Thread(target=self._compile, args=(size,))
                self._thread.start()
        return model

    def wait(self) -> None:
        """Wait until nothing is being compiled."""
        if self._thread is not None:
            self._thread.join()

    def _count(self, size: Size) -> None:
        self._calls[size] += 1
        if self._calls.total() >= CALLS_UNTIL_HALVED:
            self._calls = Counter({size: calls // 2 for size, calls in self._calls.items()})

    def _is_worth_it(self, size: Size) -> bool:
        if self._thread is not None or size in self._failed:
            return False
        calls = self._calls[size]
        if calls < CALLS_UNTIL_COMPILED:
            return False
        return len(self._models) < self._most or calls > TIMES_AS_OFTEN * self._calls[self._rarest]

    @property
    def _rarest(self) -> Size:
        return min(self._models, key=lambda size: self._calls[size])

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
            if len(self._models) >= self._most:
                del self._models[self._rarest]
            self._models[size] = model
            self._thread = None
        log.info("input size compiled", height=size[0], width=size[1], sizes=len(self._models))
