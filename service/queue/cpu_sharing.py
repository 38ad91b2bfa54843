"""Loads of the worker processes of one server, in memory that all of them map."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BUSY_SLOTS, CONNECTIONS = range(2)
NUMBERS_PER_WORKER: Final = 2
BYTES_PER_NUMBER: Final = 4
NOT_SERVING: Final = -1

# Name of the file in the folder that the workers share.
LOADS_FILE: Final = "loads"


class WorkerLoads:
    """How busy each worker of a server is, as seen by one of them.

    Each worker writes its own numbers and reads those of the others, without a lock. A number may
    be a moment old, so readers take it as a hint.

    Args:
        numbers: `NUMBERS_PER_WORKER` int32 for each worker, in shared memory.
        worker: Index of the worker that reads and writes through this object.
    """

    def __init__(self, numbers: "memoryview[int]", worker: int) -> None:
        self._numbers = numbers
        self._first = worker * NUMBERS_PER_WORKER

    @classmethod
    def create(cls, path: Path, workers: int) -> None:
        """Write the file for a number of workers, none of which serves yet."""
        path.write_bytes(bytes(workers * NUMBERS_PER_WORKER * BYTES_PER_NUMBER))
        for worker in range(workers):
            cls.attach(path, worker)

    @classmethod
    def attach(cls, path: Path, worker: int) -> "WorkerLoads":
        """Map the file that `create` wrote, as a worker that does not serve yet."""
        with path.open("r+b") as file:
            loads = cls(memoryview(mmap.mmap(file.fileno(), 0)).cast("i"), worker)
        loads.leave()
        return loads

    @classmethod
    def forget(cls, path: Path, worker: int) -> None:
        """Clear the numbers of a worker that has died."""
        cls.attach(path, worker)

    def leave(self) -> None:
        """Say that this worker uses no slots and takes no connections."""
        self._numbers[self._first + BUSY_SLOTS] = 0
        self._numbers[self._first + CONNECTIONS] = NOT_SERVING

    @property
    def workers(self) -> int:
        """Number of workers that the server is to have."""
        return len(self._numbers) // NUMBERS_PER_WORKER

    def tell_busy(self, slots: int) -> None:
        """Say how many engine slots this worker uses, borrowed ones included."""
        self._numbers[self._first + BUSY_SLOTS] = slots

    def busy_elsewhere(self) -> int:
        """Engine slots that the other workers use."""
        return sum(self._of_others(BUSY_SLOTS))

    def tell_connections(self, count: int) -> None:
        """Say how many connections this worker has."""
        self._numbers[self._first + CONNECTIONS] = count

    def fewest_connections_elsewhere(self) -> int | None:
        """The fewest connections of any other worker, or None if no other worker serves."""
        return min((count for count in self._of_others(CONNECTIONS) if count >= 0), default=None)

    def _of_others(self, which: int) -> Iterator[int]:
        for first in range(0, len(self._numbers), NUMBERS_PER_WORKER):
            if first != self._first:
                yield self._numbers[first + which]
