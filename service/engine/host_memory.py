"""Memory of the host that is used again and again, and that a GPU may read and write by itself."""

import ctypes
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog
from numpy.typing import DTypeLike, NDArray

from service.engine.cuda_runtime import cuda_runtime

log = structlog.get_logger(__name__)


class HostMemory:
    """Arrays whose memory is taken up again when nobody refers to it any more.

    New memory costs a page fault for every 4 KiB: with it, 32 images of 640x640 and their rows
    (39 and 91 MB) took 54 ms there and back where an H100 works for 11.

    Args:
        lock: Called once with each piece of memory, before it is used.
    """

    def __init__(self, lock: Callable[[NDArray[np.uint8]], None]) -> None:
        self._lock = lock
        # By size. A deque's ends are safe on any thread, also while Python collects garbage.
        self._free: dict[int, deque[NDArray[np.uint8]]] = {}

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of any content. Safe on any thread.

        Args:
            shape: Its shape; the first call for a size, to the next power of two, is the slow one.
            dtype: Its dtype.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        free = self._free.setdefault(1 << (size - 1).bit_length(), deque())
        try:
            memory = free.pop()
        except IndexError:
            memory = np.zeros(1 << (size - 1).bit_length(), np.uint8)
            self._lock(memory)
        return np.asarray(_Lease(memory, free))[:size].view(dtype).reshape(shape)


class _Lease:
    """Owner of a piece of memory while arrays use it; the memory is free once they are gone."""

    def __init__(self, memory: NDArray[np.uint8], free: deque[NDArray[np.uint8]]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._free = memory, free

    def __del__(self) -> None:
        self._free.append(self._memory)


def page_locker() -> Callable[[NDArray[np.uint8]], None]:
    """A function that locks memory, so that a GPU copies from and to it without the CPU.

    Where CUDA's runtime library is not among the loaded ones or has no room, memory stays as it is:
    copies then take longer.
    """
    runtime = cuda_runtime()
    if runtime is None:
        log.warning("no CUDA runtime library was found; copies to and from the GPU take longer")
        return lambda _: None

    def lock(memory: NDArray[np.uint8]) -> None:
        address, size = ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes)
        code = runtime.cudaHostRegister(address, size, 0)
        if code != 0:
            log.warning("memory could not be locked", bytes=memory.nbytes, cuda_error=code)

    return lock
