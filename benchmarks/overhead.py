"""What a request costs beside the model: the server with an engine that is free, loaded by wrk.

    python benchmarks/overhead.py [--processes 1 2] [--boxes 0 5] [--image bmp] [--seconds 4]

The server is the real one (uvicorn, routes, queue, suppression) in processes of its own that share
a socket and, where there are several, their metrics, like `--workers`. Its engine gives the same
rows for any image, as one instance that batches, like a GPU's. Images are as small as the network's
input, 64 x 64 pixels, and 64 KiB as files: a BMP with bytes after its end, or a JPEG with a long
comment; what decoding costs is printed as well. Log lines go to a file.

In turns with it runs the floor: the same uvicorn and protocol in front of an application that
reads the body and answers the same bytes. The columns:

req/s       answered requests a second, by all processes, while wrk takes its share of the CPUs
req/s/core  answered requests, over the CPU seconds of the server's processes
us CPU      its inverse: microseconds of CPU time a request
of floor    req/s/core, over the floor's
p50, p99    latency in ms
"""

import argparse
import http.client
import io
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_app
from service.core.contract import InputSpec, ModelContract
from service.images import read_image
from service.logs import configure_logs
from service.metrics import Metrics
from service.processes import FOLDER_VARIABLE, write_metrics_as
from service.server import run, uvicorn_config
from service.settings import Settings

SIDE = 64
KINDS = ("bmp", "jpeg")
FILE_BYTES = 64 * 1024
BOXES_A_ROW, MOST_BOXES = 4, 16
LOGIT_SURE, LOGIT_NEVER = 8.0, -12.0
START_TIMEOUT_S, WARM_UP_S = 60, 1.0
# As long as curl's.
BOUNDARY = "------------------------f1c0a3d65b2e4d7788a1b2"
CONTRACT = ModelContract(
    name="free",
    version="1",
    input=InputSpec(name="images", height=SIDE, width=SIDE, dynamic_size=True),
    class_names=tuple(f"class {number}" for number in range(80)),
)
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


class FreeEngine:
    """Finds the same boxes in any image, for nothing.

    Args:
        boxes: How many, `MOST_BOXES` at most; they do not overlap, and each has another class.
    """

    provider = wanted_provider = "FreeExecutionProvider"
    contract = CONTRACT
    max_batch = 16
    spans: Sequence[int] = (1,)

    def __init__(self, boxes: int) -> None:
        shape = (self.max_batch, CONTRACT.num_cells(SIDE, SIDE), CONTRACT.output_channels)
        self._rows = np.full(shape, LOGIT_NEVER, np.float32)
        for box in range(boxes):
            down, across = divmod(box, BOXES_A_ROW)
            # The first level has a cell every 8 pixels; boxes fill every second one.
            row = self._rows[:, 2 * down * (SIDE // 8) + 2 * across]
            row[:, :4] = (0.5, 0.5, 0, 0)
            row[:, 4] = row[:, 5 + box] = LOGIT_SURE

    def infer(self, images: NDArray[np.uint8], span: int = 1) -> NDArray[np.floating]:
        """Give (N, A, 4 + 1 + C) raw rows for (N, `SIDE`, `SIDE`, 3) images."""
        del span
        return self._rows[: len(images)]


@dataclass(frozen=True)
class Answer:
    """What one request was answered with."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class Body:
    """What a request sends."""

    content: bytes
    content_type: str


@dataclass(frozen=True)
class Load:
    """What wrk saw, and what the server spent on it.

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
    """The median load of the server and that of the floor, which take turns."""
    with ExitStack() as stack:
        level = arguments.log_level
        service = stack.enter_context(serving(Service(boxes, level), processes))
        floor = stack.enter_context(serving(Floor(service.ask(body)), processes))
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


@dataclass(frozen=True)
class Service:
    """The server under test: what a process of it needs to know."""

    boxes: int
    log_level: str

    def __call__(self, listener: socket.socket, place: int | None, started: Event) -> None:
        """Serve until a signal."""
        # A queue that holds every connection: refusals are not what is measured.
        settings = Settings(max_queue_images=4096)
        configure_logs("json", self.log_level)
        if place is not None:
            write_metrics_as(place)
        metrics = Metrics(None if place is None else Path(os.environ[FOLDER_VARIABLE]))
        app = create_app(settings, FreeEngine(self.boxes), metrics)
        sys.exit(run(app, settings, listener, started.set))


@dataclass(frozen=True)
class Floor:
    """uvicorn alone: what a process of it needs to know."""

    answer: Answer

    def __call__(self, listener: socket.socket, place: int | None, started: Event) -> None:
        """Serve until a signal."""
        del place
        config = uvicorn_config(answering(self.answer), Settings())
        _AnnouncingServer(config, started).run([listener])


class _AnnouncingServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Event) -> None:
        super().__init__(config)
        self._listens = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listens.set()


def answering(answer: Answer) -> ASGIApp:
    """An application that reads the body and always gives the same answer."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        chunks = []
        while (message := await receive())["type"] == "http.request":
            chunks.append(message["body"])
            if not message.get("more_body"):
                break
        b"".join(chunks)
        await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    return app


class Server:
    """Processes that serve on one port."""

    def __init__(self, port: int, process_ids: Sequence[int]) -> None:
        self._port = port
        self._process_ids = process_ids

    def ask(self, body: Body) -> Answer:
        """Send one request, which has to be answered with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=START_TIMEOUT_S)
        connection.request("POST", "/detect", body.content, {"Content-Type": body.content_type})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
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
            run_wrk([*command, f"-d{WARM_UP_S:.0f}s", *target, body.content_type])
            before, started = self._cpu_seconds(), time.monotonic()
            totals = run_wrk([*command, f"-d{seconds:.0f}s", *target, body.content_type])
            cpu_s, wall_s = self._cpu_seconds() - before, time.monotonic() - started
        return Load(totals.requests / wall_s, 1e6 * cpu_s / totals.requests, *totals.quantiles_ms)

    def _cpu_seconds(self) -> float:
        return sum(map(cpu_seconds, self._process_ids))


@contextmanager
def serving(
    what: Callable[[socket.socket, int | None, Event], None], processes: int
) -> Iterator[Server]:
    """Run so many processes on a free port, which share their metrics if they are several."""
    spawn = multiprocessing.get_context("spawn")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.TemporaryDirectory() as folder,
    ):
        log = Path(folder) / "log"
        events = [spawn.Event() for _ in range(processes)]
        running = [
            spawn.Process(
                target=_child, args=(what, listener, place if processes > 1 else None, event, log)
            )
            for place, event in enumerate(events)
        ]
        try:
            for process, event in zip(running, events, strict=True):
                process.start()
                if not event.wait(START_TIMEOUT_S):
                    raise SystemExit(f"error: the server did not start: {log.read_text()}")
            yield Server(listener.getsockname()[1], [process.pid or 0 for process in running])
        finally:
            for process in running:
                process.terminate()
                process.join()


def _child(
    what: Callable[[socket.socket, int | None, Event], None],
    listener: socket.socket,
    place: int | None,
    started: Event,
    log: Path,
) -> None:
    with log.open("a", encoding="utf-8") as stream:
        sys.stderr = stream
        os.environ[FOLDER_VARIABLE] = str(log.parent)
        what(listener, place, started)


@dataclass(frozen=True)
class Totals:
    """What wrk counted."""

    requests: int
    quantiles_ms: tuple[float, float]


def run_wrk(command: Sequence[str]) -> Totals:
    """Run wrk with the script above; every answer has to be 200."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    totals = done.stdout.rpartition("\ntotals ")[2].split()
    if done.returncode != 0 or len(totals) != 5:
        raise SystemExit(f"error: wrk failed: {done.stdout}{done.stderr}")
    requests, refused, lost = map(int, totals[:3])
    if refused or lost or not requests:
        raise SystemExit(
            f"error: of {requests} requests {refused} were refused, and {lost} had no answer"
        )
    return Totals(requests, (float(totals[3]), float(totals[4])))


def cpu_seconds(process_id: int) -> float:
    """User and system time of a process so far, all its threads together."""
    stat = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8")
    # Counted from after the name, which may have spaces: utime and stime.
    ticks = stat.rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def image_file(kind: str) -> bytes:
    """A grey picture of `SIDE` x `SIDE` pixels, 64 KiB as a file."""
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
    """CPU time of decoding one image, in microseconds."""
    costs = []
    for _ in range(times):
        started = time.thread_time_ns()
        read_image(content, SIDE * SIDE)
        costs.append((time.thread_time_ns() - started) / 1000)
    return statistics.median(costs)


def multipart(content: bytes) -> Body:
    """An image as the one part of a form."""
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
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many is printed")
    parser.add_argument("--log-level", choices=("info", "warning"), default="info")
    return parser.parse_args()


if __name__ == "__main__":
    main()
