"""What the processes of one server tell one another, in memory that all of them see."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BUSY, CONNECTIONS = range(2)
NUMBERS_OF_EACH: Final = 2
BYTES_OF_NUMBER: Final = 4
NOT_SERVING: Final = -1

# Its name in the folder that workers share.
TEAM_FILE: Final = "team"


class Team:
    """The workers of a server, as one of them sees it.

    Each writes its own numbers and reads the others', without a lock: what is read may be a moment
    old, and is taken as a hint.

    Args:
        path: The file that `create` made.
        place: Which of the workers this is.
    """

    def __init__(self, path: Path, place: int) -> None:
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("i")
        self._first = place * NUMBERS_OF_EACH
        self.leave()

    @classmethod
    def create(cls, path: Path, size: int) -> None:
        """Make the file for so many workers, none of which serves."""
        path.write_bytes(bytes(size * NUMBERS_OF_EACH * BYTES_OF_NUMBER))
        for place in range(size):
            cls(path, place)

    @classmethod
    def forget(cls, path: Path, place: int) -> None:
        """The worker in this place is dead."""
        cls(path, place)

    def leave(self) -> None:
        """This worker takes no connections any more, and uses nothing."""
        self._numbers[self._first + BUSY] = 0
        self._numbers[self._first + CONNECTIONS] = NOT_SERVING

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        return len(self._numbers) // NUMBERS_OF_EACH

    def tell_busy(self, instances: int) -> None:
        """How many instances this worker has at work."""
        self._numbers[self._first + BUSY] = instances

    def busy_elsewhere(self) -> int:
        """How many the others have."""
        return sum(self._of_others(BUSY))

    def tell_connections(self, count: int) -> None:
        """How many connections this worker has."""
        self._numbers[self._first + CONNECTIONS] = count

    def fewest_connections_elsewhere(self) -> int | None:
        """How many the worker with the fewest of those has that serve beside this one."""
        return min((count for count in self._of_others(CONNECTIONS) if count >= 0), default=None)

    def _of_others(self, which: int) -> Iterator[int]:
        for first in range(0, len(self._numbers), NUMBERS_OF_EACH):
            if first != self._first:
                yield self._numbers[first + which]
