"""What a photo costs `yolox-serve detect`, compared with a server that is sent the same photos.

    python benchmarks/detect_rate.py --photos FOLDER [--count 10000] [--model MODEL.onnx]

The photos are linked again and again into a temporary folder until there are `--count`. Each round
has three parts, with the same photos and the same engine:

- a server gets every fifth as a raw body, over `--clients` connections; the sender is left out;
- `yolox-serve detect` with the model in its own process;
- `yolox-serve detect --server`, with the cost of the command and that of the server together.

Costs are CPU time, so other programs on the machine change them little. Where CPUs are the limit,
the rate is the number of CPUs over the cost, so the ratio of two costs is that of the rates (limit
0.9). For the server and the command on separate machines, the server's part alone counts. The
output also has the resident memory of the command after a tenth of the photos, and its peak.
"""

import argparse
import http.client
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

from overload import EXAMPLE, resident_mib, serving

from yolox_serve.detect.run import journal_path

LEAST_RATIO = 0.9
PER_FOLDER = 1000
SERVER_GETS_ONE_OF = 5
WARM_UP = 100
POLL_S = 0.2
LATE_S = 60.0


@dataclass(frozen=True)
class Cost:
    """What a part of a round took.

    Attributes:
        command_ms: CPU time of the command for each photo, in ms; 0 where there was none.
        server_ms: CPU time of the server for each photo, in ms; 0 where there was none.
        early_mib: Resident memory of the command after a tenth of the photos.
        peak_mib: The most memory that the command had.
    """

    command_ms: float
    server_ms: float
    early_mib: float = 0.0
    peak_mib: float = 0.0

    @property
    def all_ms(self) -> float:
        """CPU time of all processes for each photo, in ms."""
        return self.command_ms + self.server_ms


def main() -> None:
    """Measure, and print the costs with their ratios."""
    arguments = _arguments()
    originals = sorted(arguments.photos.rglob("*.jpg")) if arguments.photos else [EXAMPLE]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        photos = linked(originals, Path(scratch, "photos"), arguments.count)
        engine = ["--device", arguments.device]
        model = [] if arguments.model is None else ["--model", str(arguments.model)]
        with serving(arguments.model, engine) as (pid, url):
            _send(url, photos[:WARM_UP], arguments.clients)
            for number in range(arguments.rounds):
                print(f"round {number + 1}: {len(photos)} photos", flush=True)
                server = _server_cost(pid, url, photos[::SERVER_GETS_ONE_OF], arguments.clients)
                report("a server", server, server)
                folder = [str(photos[0].parents[1])]
                report("detect", _command_cost([*folder, *engine, *model], photos), server)
                address = ["--server", url.removesuffix("/detect")]
                remote = _command_cost([*folder, *address], photos, pid)
                report("detect --server", remote, server)


def report(name: str, cost: Cost, server: Cost) -> None:
    """Print a line of the table."""
    parts = [f"{cost.command_ms:.1f} ms command"] if cost.command_ms else []
    parts += [f"{cost.server_ms:.1f} ms server"] if cost.server_ms else []
    line = f"{name}: {cost.all_ms:.1f} ms a photo ({' + '.join(parts)})"
    if cost is not server:
        ratio = server.all_ms / cost.all_ms
        verdict = "within" if ratio >= LEAST_RATIO else "MISSES"
        line += f", {ratio:.2f} of the server's rate ({verdict} the limit of {LEAST_RATIO:g})"
        line += f"; {cost.early_mib:.0f} MiB after a tenth, at most {cost.peak_mib:.0f}"
    print(line, flush=True)


def linked(originals: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Link files again and again, until there are `count` of them.

    Raises:
        SystemExit: There are none.
    """
    if not originals:
        raise SystemExit("error: the folder has no .jpg")
    links = list[Path]()
    for number, original in enumerate(islice(cycle(originals), count)):
        link = folder / f"{number // PER_FOLDER:03d}" / f"{number:06d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(original.resolve())
        links.append(link)
    return links


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, in seconds."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def _server_cost(pid: int, url: str, photos: Sequence[Path], clients: int) -> Cost:
    before = cpu_s(pid)
    _send(url, photos, clients)
    return Cost(0.0, 1e3 * (cpu_s(pid) - before) / len(photos))


def _send(url: str, photos: Sequence[Path], clients: int) -> None:
    with ThreadPoolExecutor(clients) as threads:
        parts = (photos[first::clients] for first in range(clients))
        list(threads.map(partial(_send_part, url), parts))


def _send_part(url: str, photos: Sequence[Path]) -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=LATE_S)
    with closing(connection):
        for photo in photos:
            headers = {"Content-Type": "image/jpeg"}
            connection.request("POST", address.path, photo.read_bytes(), headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise SystemExit(f"error: {answer.status}: {content!r}")


def _command_cost(words: Sequence[str], photos: Sequence[Path], server: int | None = None) -> Cost:
    """Run the command on all photos.

    Raises:
        SystemExit: It fails.
    """
    before_s = 0.0 if server is None else cpu_s(server)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "boxes.jsonl")
        command = [sys.executable, "-m", "yolox_serve", "detect", *words, "--output", str(output)]
        process = subprocess.Popen(command)  # noqa: S603
        early_mib = _memory_after(process.pid, journal_path(output), len(photos) // 10)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: the command ended with {process.returncode}")
    server_ms = 0.0 if server is None else 1e3 * (cpu_s(server) - before_s) / len(photos)
    command_ms = 1e3 * (used.ru_utime + used.ru_stime) / len(photos)
    return Cost(command_ms, server_ms, early_mib, used.ru_maxrss / 1024)


def _memory_after(pid: int, journal: Path, count: int) -> float:
    """The resident memory of a process, in MiB, as soon as its journal has so many records."""
    size, lines = 0, 0
    while lines <= count and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(POLL_S)
        if journal.exists():
            with journal.open("rb") as file:
                file.seek(size)
                new = file.read()
            size, lines = size + len(new), lines + new.count(b"\n")
    return resident_mib(pid)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="folder of JPEG files (default: one example)")
    parser.add_argument("--count", type=int, default=10_000, help="photos in each part")
    parser.add_argument("--model", type=Path, help="ONNX file (default: the embedded one)")
    parser.add_argument("--device", default="cpu", help="where the model runs, in each part")
    parser.add_argument("--clients", type=int, default=8, help="connections that load the server")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help="folder for the links (default: temporary)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
