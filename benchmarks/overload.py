"""How the server copes with four times the load that saturates it.

    python benchmarks/overload.py [--model MODEL.onnx] [--photo photo.jpg] [--seconds 20] [--apart]
        [-- FLAGS]

First `--clients` connections send one photo over and over, each as soon as it has its answer: their
throughput is the peak. Then many connections together send `--factor` times the peak, evenly paced
and each in its turn, without regard to the answers. The two loads alternate `--rounds` times,
because the speed of a shared machine varies. The output has

- the useful throughput (answers 200 a second) over the peak (limit 0.95);
- the 99th percentile of the latency of answers 200, and the deadline of a request;
- the number of answers with each status, and for 503 the values of Retry-After: a client that comes
  back after that time should be admitted;
- the resident memory of the server after the peak, and after the overload.

On few cores the sender, overload_sender.py, takes CPU time from the server that it measures, and
more of it in the overload; that time is printed as well. With `--apart` the sender has the last CPU
to itself, and the server has the others, in both loads.
"""

import argparse
import csv
import io
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import numpy as np

SENDER = Path(__file__).with_name("overload_sender.py")
EXAMPLE = Path(__file__).parents[1] / "examples" / "parcel.jpg"
LEAST_OF_PEAK = 0.95
DEADLINE_S = 10.0
START_TIMEOUT_S = 120.0
# Requests a second of each connection in the overload. The rate is so low that answers come sooner
# than the next request is due, so that waiting for them does not slow the sender down.
RATE_OF_CONNECTION = 0.15
ASKERS = 4
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Answers:
    """The answers that the sender got.

    Attributes:
        seconds: Length of the counted time, which is the second half of the load.
        statuses: Number of answers with each status, in the counted time.
        latencies_s: Seconds that each answer 200 took, in the counted time.
        sender_cpus: CPUs that the sender itself kept busy.
    """

    seconds: float
    statuses: Counter[int]
    latencies_s: Sequence[float]
    sender_cpus: float

    @property
    def useful_per_s(self) -> float:
        """Answers 200 a second."""
        return self.statuses[200] / self.seconds


@dataclass(frozen=True)
class Promise:
    """One refusal's Retry-After.

    Attributes:
        seconds: How long it told the client to wait.
        kept: Whether the request after that wait was admitted.
    """

    seconds: int
    kept: bool


def main() -> None:
    """Measure, and print the ratios beside their limits."""
    arguments = _arguments()
    all_cpus = os.sched_getaffinity(0)
    senders = {max(all_cpus)} if arguments.apart else all_cpus
    os.sched_setaffinity(0, all_cpus - senders or all_cpus)
    peaks, overs, promises = list[Answers](), list[Answers](), list[Promise]()
    with serving(arguments.model, arguments.flags) as (process_id, url):
        os.sched_setaffinity(0, senders)
        load(url, arguments.photo, 5, arguments.clients)
        for number in range(arguments.rounds):
            peaks.append(load(url, arguments.photo, arguments.seconds, arguments.clients))
            if number == 0:
                memory = [resident_mib(process_id)]
            offered = arguments.factor * max(peak.useful_per_s for peak in peaks)
            connections = max(arguments.clients, round(offered / RATE_OF_CONNECTION))
            with asking(url, arguments.photo) as heard:
                gap = 1 / RATE_OF_CONNECTION
                overs.append(load(url, arguments.photo, arguments.seconds, connections, gap))
            promises += heard
        memory.append(resident_mib(process_id))
    report(together(peaks), together(overs), offered, promises, memory)


def report(
    peak: Answers, over: Answers, offered: float, promises: Sequence[Promise], memory: list[float]
) -> None:
    """Print the results."""
    ratio = over.useful_per_s / peak.useful_per_s
    p99 = float(np.percentile(over.latencies_s, 99))
    print(f"peak: {peak.useful_per_s:.1f} answers 200 a second; overload: {offered:.0f}/s offered")
    cpus = f"{peak.sender_cpus:.2f} at the peak, {over.sender_cpus:.2f} in the overload"
    print(f"CPUs that the sender took: {cpus}")
    print(f"answers in the overload: {dict(sorted(over.statuses.items()))}")
    print(f"useful / peak: {ratio:.3f} ({_verdict(ratio >= LEAST_OF_PEAK)} {LEAST_OF_PEAK})")
    print(f"p99 of answers 200: {p99:.2f} s ({_verdict(p99 <= DEADLINE_S)} {DEADLINE_S:g} s)")
    if promises:
        kept = sum(promise.kept for promise in promises) / len(promises)
        waits = sorted({promise.seconds for promise in promises})
        print(
            f"Retry-After: {waits} s in {len(promises)} refusals; {kept:.0%} were admitted after it"
        )
    print(f"resident memory: {memory[0]:.0f} MiB after the peak, {memory[1]:.0f} MiB at the end")


def _verdict(holds: bool) -> str:
    return "within the limit of" if holds else "MISSES the limit of"


@contextmanager
def serving(model: Path | None, flags: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Run the server on a free port; gives its process id and address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    named = () if model is None else ("--model", str(model))
    command = [sys.executable, "-m", "service", *named, "--port", str(port), *flags]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([*command, "--log-level", "error"]) as process:  # noqa: S603
        try:
            _await_ready(process, url)
            yield process.pid, f"{url}/detect"
        finally:
            process.terminate()


def _await_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("error: the server did not start")


def load(url: str, photo: Path, seconds: int, connections: int, gap_s: float = 0) -> Answers:
    """Send a photo for a number of seconds, and count the answers of the second half."""
    address = httpx.URL(url)
    arguments = (address.host, address.port, photo, seconds, connections, gap_s)
    before = _cpu_seconds_of_ended_children()
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(SENDER), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    sender_cpus = (_cpu_seconds_of_ended_children() - before) / seconds
    return read_answers(done.stdout, seconds, sender_cpus)


def _cpu_seconds_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_answers(table: str, seconds: float, sender_cpus: float) -> Answers:
    """Read the sender's table: when each request was due, how long it took, and its status.

    Only answers in the second half of the time count, because the first half fills the queue.
    """
    rows = [
        (float(row["offset"]), float(row["response-time"]), int(row["status-code"]))
        for row in csv.DictReader(io.StringIO(table))
    ]
    counted = [row for row in rows if seconds / 2 <= row[0] + row[1] < seconds]
    latencies = [taken for _, taken, status in counted if status == 200]
    statuses = Counter(status for *_, status in counted)
    return Answers(seconds / 2, statuses, latencies, sender_cpus)


def together(rounds: Sequence[Answers]) -> Answers:
    """The answers of several rounds, combined into one."""
    return Answers(
        sum(answers.seconds for answers in rounds),
        sum((answers.statuses for answers in rounds), Counter[int]()),
        [latency for answers in rounds for latency in answers.latencies_s],
        sum(answers.sender_cpus for answers in rounds) / len(rounds),
    )


@contextmanager
def asking(url: str, photo: Path) -> Iterator[list[Promise]]:
    """Run a few more clients meanwhile, which wait as long as Retry-After tells them."""
    over, promises = threading.Event(), list[Promise]()
    work = (url, photo.read_bytes(), over, promises)
    threads = [threading.Thread(target=_ask, args=work) for _ in range(ASKERS)]
    for thread in threads:
        thread.start()
    try:
        yield promises
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(url: str, content: bytes, over: threading.Event, promises: list[Promise]) -> None:
    headers = {"Content-Type": "image/jpeg"}
    promised: int | None = None
    while not over.wait(promised or 0.05):
        answer = httpx.post(url, content=content, headers=headers, timeout=30)
        if promised is not None:
            promises.append(Promise(promised, answer.status_code == 200))
        promised = int(answer.headers["Retry-After"]) if answer.status_code == 503 else None


def resident_mib(process_id: int) -> float:
    """Resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    return pages * PAGE_BYTES / 2**20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="ONNX file (default: the embedded one)")
    parser.add_argument("--photo", type=Path, default=EXAMPLE, help="JPEG to send")
    parser.add_argument("--seconds", type=int, default=20, help="length of each load")
    parser.add_argument("--rounds", type=int, default=2, help="how often both loads are sent")
    parser.add_argument("--apart", action="store_true", help="give the sender a CPU of its own")
    parser.add_argument("--clients", type=int, default=32, help="connections that saturate it")
    parser.add_argument("--factor", type=float, default=4, help="offered load over the peak")
    parser.add_argument("flags", nargs="*", help="more flags of the server, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
