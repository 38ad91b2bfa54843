"""A bound on the memory of all images that are being decoded, or are kept to be drawn on."""

import ctypes
import fcntl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from service.errors import BusyError, TooLargeError

MIB: Final = 2**20
# Decoding what is there now takes a few seconds at most.
MAX_WAIT_S: Final = 20.0
POLL_S: Final = 0.01
# glibc's numbers of two parameters. Blocks of the first size, below that of the blocks in which
# Pillow keeps images, are mapped one by one. The second is what a heap may keep free at its end:
# the memory of ordinary images, which would otherwise be taken anew for each.
M_MMAP_THRESHOLD: Final = -3
LARGE_BLOCK: Final = 8 * MIB
M_TRIM_THRESHOLD: Final = -1
KEPT_FREE: Final = 16 * MIB


def give_back_large_blocks() -> None:
    """From here on, memory of large images goes back to the system as soon as it is free.

    By default glibc keeps blocks of up to 32 MiB for later, in a heap for each thread: a few large
    images left 600 MiB behind. Other C libraries have no such setting, and are left alone.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_FREE)


def give_back_free_heap() -> None:
    """Give the system what is free inside the heaps too, once something large has been freed.

    That takes some milliseconds. C libraries other than glibc are left alone.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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

    def take(self, count: int) -> "HeldMemory":
        """Wait until this many bytes are free, and hold them.

        Args:
            count: The bytes that decoding an image takes at most.

        Raises:
            TooLargeError: It is more than the bound.
            BusyError: They were not free in time.
        """
        if count > self._max_bytes:
            raise TooLargeError(
                f"decoding the image would take {count // MIB} MiB of memory, and the limit is "
                f"{self._max_bytes // MIB} MiB; send it with fewer pixels, or as a JPEG"
            )
        part = min(count, self._part)
        ends = time.monotonic() + MAX_WAIT_S
        with self._changed:
            if not self._changed.wait_for(lambda: self.free >= part, MAX_WAIT_S):
                raise BusyError("other images take all memory for decoding", retry_after_s=1)
            self.free -= part
        held = HeldMemory(self, part)
        if count > part and self._turns is not None:
            held.take_turn(self._turns, ends)
        return held

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

    def take_turn(self, file: Path, ends: float) -> None:
        """Be the one process of the server that decodes more than its part.

        Args:
            file: The file that all processes lock.
            ends: `time.monotonic()` until which to wait.

        Raises:
            BusyError: Another process was at it for too long.
        """
        self._turn = file.open("ab")
        while time.monotonic() < ends:
            with suppress(BlockingIOError):
                fcntl.flock(self._turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(POLL_S)
        self.release()
        raise BusyError("other images take all memory for decoding", retry_after_s=1)

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
