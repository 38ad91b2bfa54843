import gc

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.host_memory import HostMemory, page_locker


class Locks:
    """Remembers what was locked."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, memory: NDArray[np.uint8]) -> None:
        self.sizes.append(memory.nbytes)


def address(array: NDArray[np.generic]) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_when_the_last_part_of_it_is_gone() -> None:
    memory = HostMemory(locks := Locks())
    rows = memory.take((2, 3, 4), np.float32)
    assert (rows.shape, rows.dtype, rows.flags.c_contiguous) == ((2, 3, 4), np.float32, True)
    first, second = rows[0], rows[1, :, 0]
    place = address(rows)
    del rows, first
    second[:] = 7
    other = memory.take((2, 3, 4), np.float32)
    assert address(other) != place
    np.testing.assert_array_equal(second, 7)
    del second
    gc.collect()
    assert address(memory.take((1, 70), np.uint8)) == place
    assert locks.sizes == [128, 128]


def test_sizes_that_are_far_apart_do_not_share_memory() -> None:
    memory = HostMemory(locks := Locks())
    small = address(memory.take((10,), np.uint8))
    assert address(memory.take((1000,), np.uint8)) != small
    assert address(memory.take((16,), np.uint8)) == small
    assert locks.sizes == [16, 1024]


class CudaRuntime:
    """Stands in for CUDA's runtime library, and has room for one piece of memory."""

    def __init__(self) -> None:
        self.locked: list[int] = []

    def cudaHostRegister(self, pointer: object, size: object, flags: int) -> int:  # noqa: N802
        self.locked.append(size.value)  # type: ignore[attr-defined]
        return 0 if len(self.locked) == 1 else 2


def test_memory_that_cannot_be_locked_serves_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = CudaRuntime()
    monkeypatch.setattr("service.engine.host_memory.cuda_runtime", lambda: library)
    memory = HostMemory(page_locker())
    held = memory.take((3, 3), np.uint8)
    assert capsys.readouterr().err == ""
    assert memory.take((4, 4), np.uint8).shape == (4, 4)
    assert held.shape == (3, 3)
    assert library.locked == [16, 16]
    assert "memory could not be locked" in capsys.readouterr().err


def test_without_cuda_s_library_memory_is_used_again_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.engine.cuda_runtime.CUDA_RUNTIMES", ("libnone.so.0",))
    memory = HostMemory(page_locker())
    place = address(memory.take((5,), np.float32))
    assert address(memory.take((5,), np.float32)) == place
