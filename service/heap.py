"""The heap of glibc: what is free in it goes back to the system."""

import ctypes
from contextlib import suppress
from typing import Final

MIB: Final = 2**20
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
