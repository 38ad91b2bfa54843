"""A bound on the memory of all images that are being decoded, or are kept to be drawn on."""

import fcntl
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final, Self

from service.errors import BusyError, TooLargeError

MIB: Final = 2**20
# Decoding what is there now takes a few seconds at most.
MAX_WAIT_S: Final = 20.0
POLL_S: Final = 0.01
ALL_TAKEN: Final = "other images take all memory for decoding"


class MemoryShortError(BusyError):
    """The memory for decoding is taken at the moment: wait for it elsewhere, and decode then.

    Args:
        memory: The memory to wait for.
        count: The bytes that the image needs.
    """

    def __init__(self, memory: "ImageMemory", count: int) -> None:
        super().__init__(ALL_TAKEN, retry_after_s=1)
        self.memory = memory
        self.count = count


class ImageMemory:
    """The memory that the images of this process may take. Safe on any thread.

    Processes of one server share the bound in equal parts. An image that needs more than such a
    part may have the whole bound, if no other process is at such an image.

    Args:
        max_bytes: The bound, of all processes together.
        processes: How many processes share it.
        turns: A file that all processes can lock; needed where there are several.

    Attributes:
        free: Bytes that nobody holds of this process's part.
    """

    def __init__(self, max_bytes: int, processes: int = 1, turns: Path | None = None) -> None:
        self._max_bytes = max_bytes
        self._part = self.free = max_bytes // processes
        self._turns = turns
        self._changed = threading.Condition()
        self._waiting = 0

    def take(self, count: int) -> "HeldMemory":
        """Hold this many bytes, at once or not at all; those that wait for some come first.

        Args:
            count: The bytes that decoding an image takes at most.

        Raises:
            TooLargeError: It is more than the bound.
            MemoryShortError: They are not free.
        """
        self._check(count)
        part = min(count, self._part)
        with self._changed:
            if self._waiting or self.free < part:
                raise MemoryShortError(self, count)
            self.free -= part
        held = HeldMemory(self, part)
        if count > part and self._turns is not None and not held.take_turn(self._turns):
            held.release()
            raise MemoryShortError(self, count)
        return held

    def wait(self, count: int, ends: float) -> "HeldMemory":
        """Wait until this many bytes are free, and hold them.

        Args:
            count: The bytes that decoding an image takes at most.
            ends: `time.monotonic()` until which they are of use.

        Raises:
            TooLargeError: It is more than the bound.
            BusyError: They were not free in time.
        """
        self._check(count)
        part = min(count, self._part)
        ends = min(ends, time.monotonic() + MAX_WAIT_S)
        with self._changed:
            self._waiting += 1
            seconds = max(0.0, ends - time.monotonic())
            is_free = self._changed.wait_for(lambda: self.free >= part, seconds)
            self._waiting -= 1
            if not is_free:
                raise BusyError(ALL_TAKEN, retry_after_s=1)
            self.free -= part
        held = HeldMemory(self, part)
        if count > part and self._turns is not None:
            held.wait_for_turn(self._turns, ends)
        return held

    def _check(self, count: int) -> None:
        if count > self._max_bytes:
            raise TooLargeError(
                f"decoding the image would take {count // MIB} MiB of memory, and the limit is "
                f"{self._max_bytes // MIB} MiB; send it with fewer pixels, or as a JPEG"
            )

    def give_back(self, count: int) -> None:
        """Free bytes that were held."""
        with self._changed:
            self.free += count
            self._changed.notify_all()


class HeldMemory:
    """Bytes of an `ImageMemory`, held until `release`, or until nobody refers to this any more.

    Args:
        memory: Where they come from.
        count: How many.
    """

    def __init__(self, memory: ImageMemory, count: int) -> None:
        self._memory = memory
        self._count = count
        self._turn: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def take_turn(self, file: Path) -> bool:
        """Be the one process of the server that decodes more than its part, if no other one is.

        Args:
            file: The file that all processes lock.
        """
        turn = file.open("ab")
        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            turn.close()
            return False
        self._turn = turn
        return True

    def wait_for_turn(self, file: Path, ends: float) -> None:
        """Wait until this is the one process of the server that decodes more than its part.

        Args:
            file: The file that all processes lock.
            ends: `time.monotonic()` until which to wait.

        Raises:
            BusyError: Another process was at it for too long.
        """
        while not self.take_turn(file):
            if time.monotonic() >= ends:
                self.release()
                raise BusyError(ALL_TAKEN, retry_after_s=1)
            time.sleep(POLL_S)

    def shrink(self, count: int) -> None:
        """Hold no more than this many bytes from now on."""
        if count < self._count:
            self._memory.give_back(self._count - count)
            self._count = count
        if self._turn is not None:
            self._turn.close()
            self._turn = None

    def release(self) -> None:
        """Hold nothing any more."""
        self.shrink(0)
