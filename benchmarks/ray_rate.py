"""The rate of detection by Ray Data, compared with one process in a loop, and its memory.

    python benchmarks/ray_rate.py PHOTOS [--images 10000] [--python PYTHON-WITH-RAY]

PHOTOS are linked until there are enough. Both programs look into all of them: `yolox-serve detect`,
which is one process that uses every CPU, and `deploy/ray/detect_dataset.py`. They take turns of a
few seconds, in which the processes of the other are stopped, so that what other programs take from
the machine is taken from both. Only the time of its turns counts for a program. The starts are left
out of the rates and told apart. CPU time is that of all processes of a program.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from benchmarks.peers.host.machine import TICKS_PER_S
from benchmarks.qa.rig.service import children

ROOT: Final = Path(__file__).parents[1]
START_LIMIT_S: Final = 300.0
POLL_S: Final = 0.2
OF_FOLDER: Final = 1000
KIB, MIB = 1024, 2**20


class Contender:
    """A program that looks into a folder, and can be stopped.

    Args:
        name: Its name for people.
        command: Its command.
        log: Where its output goes.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.turns_s = 0.0
        self.memory_mib = list[float]()
        self._cpu_s = dict[int, float]()
        self._start_cpu_s = 0.0
        self._log = log
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_raylet_start_wait_time_s": "300"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - commands of this file
                [*command], env=environment, stdout=output, stderr=output, start_new_session=True
            )

    @property
    def ended(self) -> bool:
        """Whether it has looked into everything."""
        return self._process.poll() is not None

    def processes(self) -> list[int]:
        """All that it has started."""
        return [self._process.pid, *children(self._process.pid)]

    def workers(self) -> list[int]:
        """Those that compute: of Ray, only the actors, for the others watch each other."""
        actors = [pid for pid in self.processes() if b"ray::" in _read(f"/proc/{pid}/cmdline")]
        return [pid for pid in actors if b"Map" in _read(f"/proc/{pid}/cmdline")] or (
            [] if "Ray" in self.name else [self._process.pid]
        )

    def send(self, number: int) -> None:
        """Stop it, or let it go on."""
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def observe(self) -> None:
        """Note its CPU time and its memory."""
        total = 0.0
        for pid in self.processes():
            stat = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            if len(stat) > 12:
                self._cpu_s[pid] = sum(map(int, stat[11:13])) / TICKS_PER_S
            pages = _read(f"/proc/{pid}/smaps_rollup").partition(b"Pss:")[2].split()[:1]
            total += int(pages[0]) * KIB / MIB if pages else 0.0
        self.memory_mib.append(total)

    def note_start(self) -> None:
        """Count only the CPU time from here on."""
        self.observe()
        self._start_cpu_s = sum(self._cpu_s.values())
        self.memory_mib.clear()

    @property
    def cpu_s(self) -> float:
        """Its CPU time since the start, as it was last seen."""
        return sum(self._cpu_s.values()) - self._start_cpu_s

    def close(self) -> None:
        """End it, in any state."""
        for pid in reversed(self.processes()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def told(self) -> str:
        """The end of its output."""
        return self._log.read_text(errors="replace").strip().splitlines()[-1]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def link_photos(photos: Path, folder: Path, count: int) -> None:
    """Fill folders of a thousand with links to the photos, again and again."""
    found = sorted(photos.rglob("*.jpg"))
    if not found:
        raise SystemExit(f"error: there are no JPEG files in {photos}")
    for number, photo in enumerate(islice(cycle(found), count)):
        place = folder / f"{number // OF_FOLDER:03d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06d}.jpg").symlink_to(photo.resolve())


@contextmanager
def both(arguments: argparse.Namespace, work: Path) -> Iterator[tuple[Contender, Contender]]:
    """The two programs, which have just been started."""
    photos = str(work / "photos")
    detect = [sys.executable, "-m", "yolox_serve", "detect", photos, "--device", "cpu"]
    dataset = [arguments.python, str(ROOT / "deploy" / "ray" / "detect_dataset.py"), photos]
    flags = ["--device", "cpu", "--block", str(arguments.block)]
    loop = Contender("one process", [*detect, "-o", str(work / "a.jsonl")], work / "loop.log")
    ray = Contender("Ray Data", [*dataset, str(work / "boxes"), *flags], work / "ray.log")
    try:
        yield loop, ray
    finally:
        loop.close()
        ray.close()


def take_turns(contenders: Sequence[Contender], turn_s: float) -> None:
    """Let each run while the other is stopped, until both have ended."""
    while not all(each.ended for each in contenders):
        for contender in contenders:
            if contender.ended:
                continue
            contender.send(signal.SIGCONT)
            began = time.monotonic()
            while time.monotonic() - began < turn_s and not contender.ended:
                time.sleep(POLL_S)
                contender.observe()
            contender.turns_s += time.monotonic() - began
            contender.send(signal.SIGSTOP)
            contender.observe()


def main() -> int:
    """Run both, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has Ray")
    parser.add_argument("--block", type=int, default=500, help="images in a file of results")
    parser.add_argument("--turn-s", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        link_photos(arguments.photos, work / "photos", arguments.images)
        with both(arguments, work) as (loop, ray):
            started = time.monotonic()
            loop.send(signal.SIGSTOP)
            while not ray.workers():
                if ray.ended or time.monotonic() - started > START_LIMIT_S:
                    raise SystemExit(f"error: Ray did not start: {ray.told()}")
                time.sleep(POLL_S)
            print(f"Ray's actors were there after {time.monotonic() - started:.0f} s")
            for each in (loop, ray):
                each.note_start()
            take_turns([loop, ray], arguments.turn_s)
            for each in (loop, ray):
                print(describe(each, arguments.images))
        print(f"rate of Ray Data to that of one process: {loop.turns_s / ray.turns_s:.2f}")
        print(f"CPU time of an image, one process to Ray Data: {loop.cpu_s / ray.cpu_s:.2f}")
    return 0


def describe(contender: Contender, images: int) -> str:
    """A contender in a line; its memory at the peak, and early and late in the run."""
    memory = contender.memory_mib
    quarter, last = memory[len(memory) // 4], memory[9 * len(memory) // 10]
    return (
        f"{contender.name}: {images / contender.turns_s:.1f} images/s in its turns, "
        f"{1000 * contender.cpu_s / images:.1f} CPU ms/image, "
        f"memory {max(memory):.0f} MiB at most, "
        f"{quarter:.0f} after a quarter and {last:.0f} after nine tenths; {contender.told()}"
    )


if __name__ == "__main__":
    sys.exit(main())
