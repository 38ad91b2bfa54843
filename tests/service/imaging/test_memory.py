"""The bound on the memory of decoded images, within a process and over several."""

import fcntl
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import service.imaging.memory as memory_module
from service.errors import BusyError, TooLargeError
from service.imaging.memory import ImageMemory, MemoryShortError
from support.project import ROOT


def test_bytes_are_held_until_they_are_given_back() -> None:
    memory = ImageMemory(100)
    held = memory.take(60)
    held.shrink(20)
    held.shrink(50)
    assert memory.free == 80
    with memory.take(80):
        assert memory.free == 0
    held.release()
    held.release()
    assert memory.free == 100


def test_an_image_that_waits_goes_on_as_soon_as_there_is_room() -> None:
    memory = ImageMemory(100)
    first = memory.take(60)
    taken = threading.Event()
    soon = time.monotonic() + 30
    waiting = threading.Thread(target=lambda: (memory.wait(60, soon), taken.set()))
    waiting.start()
    assert not taken.wait(0.2)
    with pytest.raises(MemoryShortError):
        memory.take(10)  # There is room, but another image was here first.
    first.release()
    assert taken.wait(30)
    waiting.join()


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_WAIT_S", 0.05)
    memory = ImageMemory(100)
    with memory.take(60):
        with pytest.raises(BusyError, match="all memory"):
            memory.wait(60, time.monotonic() + 1000)
        with pytest.raises(BusyError, match="all memory"):
            memory.wait(60, time.monotonic() - 1)
    assert memory.free == 100


def test_processes_share_the_bound_and_one_at_a_time_has_more_than_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "MAX_WAIT_S", 0.05)
    first, second = (ImageMemory(100, 2, tmp_path / "turn") for _ in range(2))
    with first.take(50), second.take(50):
        pass
    with first.take(90):
        with pytest.raises(MemoryShortError):
            second.take(90)
        with pytest.raises(BusyError):
            second.wait(90, time.monotonic() + 1000)
    assert second.free == 50
    with second.take(90), (tmp_path / "turn").open("ab") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(TooLargeError):
        first.take(101)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_a_server_keeps_no_memory_of_large_images() -> None:
    code = """
import io, re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from service.heap import give_back_large_blocks
from service.imaging.read import read_image

give_back_large_blocks()
buffer = io.BytesIO()
Image.new("RGBA", (5000, 5000), (9, 9, 9, 9)).save(buffer, "PNG", compress_level=1)

def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before = held()
for _ in range(2):
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: read_image(buffer.getvalue(), 10**8) and None, range(3)))
print(held() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    # Each takes 175 MiB while it is decoded.
    assert float(done.stdout) < 60
