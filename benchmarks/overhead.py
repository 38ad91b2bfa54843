"""The cost of a request apart from the model: wrk loads a server whose engine costs nothing.

    python benchmarks/overhead.py [--processes 1 2] [--boxes 0 5] [--image bmp] [--refused]

The server is the real one (uvicorn, routes, queue, suppression) in processes of its own. They share
a socket and, if there are several, their metrics, as with `--workers`. The engine gives the same
rows for any image; like a GPU's, it is one instance that runs batches. Images have the size of the
network's input, 64 x 64 pixels, and their files have 64 KiB: a BMP with bytes after its end, or a
JPEG with a long comment. The cost of decoding them is printed as well. Log lines go to a file. With
`--refused` the server admits nothing any more, which costs as much as refusals by a full queue.

The floor runs in turns with the server: the same uvicorn and protocol in front of an application
that reads the body and answers the same bytes. The columns:

req/s       answered requests a second of all processes, while wrk takes its share of the CPUs
req/s/core  answered requests per CPU second of the server's processes
us CPU      the inverse: microseconds of CPU time a request
of floor    req/s/core, divided by the floor's
p50, p99    latency in ms
"""

import argparse
import http.client
import io
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from overhead_servers import MOST_BOXES, SIDE, Answer, Floor, Processes, Service, serving
from PIL import Image

from service.imaging.read import read_image

KINDS = ("bmp", "jpeg")
FILE_BYTES = 64 * 1024
ANSWER_TIMEOUT_S, WARM_UP_S = 60, 1.0
# As long as the boundaries of curl.
BOUNDARY = "------------------------f1c0a3d65b2e4d7788a1b2"
WRK_SCRIPT = """
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  wrk.headers["Content-Type"] = args[2]
  file:close()
end
function done(summary, latency)
  local failed = summary.errors
  print(string.format("\\ntotals %d %d %d %f %f", summary.requests,
    failed.status, failed.connect + failed.read + failed.write + failed.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True)
class Body:
    """The body of a request."""

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Load:
    """Rate and latencies that wrk measured, and the server's CPU time.

    Attributes:
        per_s: Requests a second.
        cpu_us: Microseconds of the server's CPU time a request.
        p50_ms: Median latency.
        p99_ms: Latency that one in a hundred exceeds.
    """

    per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("error: this needs wrk, which makes the load: apt-get install wrk")
    content = image_file(arguments.image)
    print(f"{arguments.connections} connections send a {arguments.image}")
    for kind in KINDS:
        print(f"decoding a {kind} costs {decode_us(image_file(kind)):.0f} us of CPU time")
    print(f"{'':36}   req/s  req/s/core  us CPU  of floor   p50   p99")
    for processes, boxes, form in product(arguments.processes, arguments.boxes, BODIES):
        body = BODIES[form](content)
        service, floor = in_turns(arguments, body, boxes, processes)
        label = f"{form}, {boxes} boxes, {processes} process{'es' * (processes > 1)}"
        _print(label, service, floor)
        _print("  floor", floor, floor)


def in_turns(
    arguments: argparse.Namespace, body: Body, boxes: int, processes: int
) -> tuple[Load, Load]:
    """The median loads of the server and of the floor, which are measured in turns."""
    with ExitStack() as stack:
        level = arguments.log_level
        refused = arguments.refused
        ours = stack.enter_context(serving(Service(boxes, level, refused), processes))
        service = Server(ours, 503 if refused else 200)
        floor = Server(stack.enter_context(serving(Floor(service.ask(body)), processes)))
        rounds = [
            [server.load(body, arguments.seconds, arguments.connections) for server in servers]
            for servers in [(service, floor)] * arguments.rounds
        ]
    first, second = zip(*rounds, strict=True)
    return _median(first), _median(second)


def _median(loads: Sequence[Load]) -> Load:
    return sorted(loads, key=lambda load: load.cpu_us)[len(loads) // 2]


def _print(label: str, load: Load, floor: Load) -> None:
    share = f"{floor.cpu_us / load.cpu_us:9.2f}"
    print(f"{label:36}{load.per_s:8.0f}{1e6 / load.cpu_us:12.0f}{load.cpu_us:8.0f}{share}", end="")
    print(f"{load.p50_ms:7.1f}{load.p99_ms:6.1f}", flush=True)


class Server:
    """Server processes to which one request or a load can be sent.

    Args:
        processes: The processes.
        status: The HTTP status of their answers.
    """

    def __init__(self, processes: Processes, status: int = 200) -> None:
        self._status = status
        self._port = processes.port
        self._process_ids = processes.ids

    def ask(self, body: Body) -> Answer:
        """Send one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_TIMEOUT_S)
        connection.request("POST", "/detect", body.content, {"Content-Type": body.content_type})
        response = connection.getresponse()
        content = response.read()
        if response.status != self._status:
            raise SystemExit(f"error: the server answered {response.status}: {content.decode()}")
        left_to_uvicorn = ("date", "connection", "transfer-encoding")
        headers = [item for item in response.getheaders() if item[0].lower() not in left_to_uvicorn]
        connection.close()
        return Answer(content, tuple((k.lower().encode(), v.encode()) for k, v in headers))

    def load(self, body: Body, seconds: float, connections: int) -> Load:
        """Let many connections send the same request over and over."""
        with tempfile.TemporaryDirectory() as folder:
            script, content = Path(folder) / "load.lua", Path(folder) / "body"
            script.write_text(WRK_SCRIPT, encoding="ascii")
            content.write_bytes(body.content)
            command = ["wrk", "-t1", f"-c{connections}", "-s", str(script)]
            target = [f"http://127.0.0.1:{self._port}/detect", "--", str(content)]
            refused = self._status != 200
            run_wrk([*command, f"-d{WARM_UP_S:.0f}s", *target, body.content_type], refused=refused)
            before, started = self._cpu_seconds(), time.monotonic()
            totals = run_wrk(
                [*command, f"-d{seconds:.0f}s", *target, body.content_type], refused=refused
            )
            cpu_s, wall_s = self._cpu_seconds() - before, time.monotonic() - started
        return Load(totals.requests / wall_s, 1e6 * cpu_s / totals.requests, *totals.quantiles_ms)

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._process_ids))


@dataclass(frozen=True)
class Totals:
    """Number of requests, and (p50, p99) of the latency in ms, from wrk."""

    requests: int
    quantiles_ms: tuple[float, float]


def run_wrk(command: Sequence[str], *, refused: bool = False) -> Totals:
    """Run wrk with the script above.

    Raises:
        SystemExit: wrk fails, or not all answers are 200 or, with `refused`, refusals.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    totals = done.stdout.rpartition("\ntotals ")[2].split()
    if done.returncode != 0 or len(totals) != 5:
        raise SystemExit(f"error: wrk failed: {done.stdout}{done.stderr}")
    requests, refusals, lost = map(int, totals[:3])
    if refusals != (requests if refused else 0) or lost or not requests:
        raise SystemExit(
            f"error: of {requests} requests {refusals} were refused, and {lost} had no answer"
        )
    return Totals(requests, (float(totals[3]), float(totals[4])))


def cpu_seconds(process_id: int) -> float:
    """User and system time of a process so far, all its threads together."""
    stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
    # utime and stime. Fields are counted after the process name, which may contain spaces.
    ticks = stat.rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def image_file(kind: str) -> bytes:
    """A grey picture of `SIDE` x `SIDE` pixels, in a file of 64 KiB."""
    picture = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    plain = _encoded(picture, kind)
    if kind == "bmp":
        return plain.ljust(FILE_BYTES, b"\0")
    # A comment's marker and length take 4 bytes.
    return _encoded(picture, kind, comment=b"." * (FILE_BYTES - len(plain) - 4))


def _encoded(picture: Image.Image, kind: str, **options: bytes) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode_us(content: bytes, times: int = 300) -> float:
    """Median CPU time of decoding one image, in microseconds."""
    costs = []
    for _ in range(times):
        started = time.thread_time_ns()
        read_image(content, SIDE * SIDE)
        costs.append((time.thread_time_ns() - started) / 1000)
    return statistics.median(costs)


def multipart(content: bytes) -> Body:
    """A form with an image as its only part."""
    head = 'Content-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    parts = (f"--{BOUNDARY}\r\n{head}".encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode())
    return Body(b"".join(parts), f"multipart/form-data; boundary={BOUNDARY}")


BODIES: dict[str, Callable[[bytes], Body]] = {
    "raw": lambda content: Body(content, "application/octet-stream"),
    "multipart": multipart,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", choices=KINDS, default=KINDS[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--boxes", type=int, nargs="+", default=[0, 5], choices=range(MOST_BOXES + 1), metavar="N"
    )
    parser.add_argument("--refused", action="store_true", help="measure refusals")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=4, help="length of each measurement")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measurements, of which the median is printed"
    )
    parser.add_argument("--log-level", choices=("info", "warning"), default="info")
    return parser.parse_args()


if __name__ == "__main__":
    main()
