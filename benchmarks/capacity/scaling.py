"""How the greatest rate grows with the servers behind a haproxy.

    python -m benchmarks.capacity.scaling                 # engines that sleep
    python -m benchmarks.capacity.scaling --real          # real servers, a CPU thread each

Engines that sleep leave the CPUs to the balancer, the HTTP layer and the load; real servers are
bounded by the CPUs as soon as there are as many. CPU times are of the run at the greatest rate.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.capacity.k6 import Target, find_k6, offer
from benchmarks.capacity.ramp import Search, climb, greatest
from benchmarks.capacity.report import TITLES, line
from benchmarks.capacity.servers import cpu_ms_of_image, spent_by
from benchmarks.capacity.step import Objective, Step
from benchmarks.peers.host.machine import TICKS_PER_S, cpu_times
from benchmarks.qa.rig.balancers import haproxy, up
from benchmarks.qa.rig.programs import Program, free_port
from benchmarks.qa.rig.service import Service
from service.cpus import usable_cpus

PHOTO: Final = Path(__file__).parents[2] / "examples" / "parcel.jpg"
HEADER: Final = (
    "| servers | images/s | of one | median ms | p99 ms | CPU ms/image, server "
    "| CPU ms/request, haproxy | CPUs in use by all |"
)
RULE: Final = "| ---: |" + " ---: |" * 7


@dataclass(frozen=True, slots=True)
class Scaled:
    """The greatest rate of a number of servers.

    Attributes:
        servers: Their number.
        step: The step of that rate.
        balancer_ms: CPU time of a request in the balancer, in ms.
        busy_cpus: CPUs that all programs of the machine used meanwhile.
    """

    servers: int
    step: Step
    balancer_ms: float
    busy_cpus: float


class SleepingService(Service):
    """A server whose engine sleeps, in a process of its own."""

    def __init__(self, folder: Path, engine_ms: float, host: str, port: int) -> None:
        super().__init__(folder, (), host, port)
        module = [sys.executable, "-m", "benchmarks.capacity.sleeping"]
        address = ["--host", host, "--port", str(port)]
        self._command = [*module, *address, "--engine-ms", str(engine_ms)]


@contextmanager
def servers(folder: Path, count: int, engine_ms: float | None) -> Iterator[list[Service]]:
    """Servers that are ready, on one port of an address for each.

    Args:
        folder: Where their logs go.
        count: Number of servers.
        engine_ms: Time of an image; None for real servers with one thread each.
    """
    port = free_port()
    with ExitStack() as opened:
        started = list[Service]()
        for host in (f"127.0.0.{2 + number}" for number in range(count)):
            service = (
                Service(folder, ("--engine-instances", "1", "--engine-threads", "1"), host, port)
                if engine_ms is None
                else SleepingService(folder, engine_ms, host, port)
            )
            started.append(opened.enter_context(closing(service)))
            service.start()
        for service in started:
            service.wait_until_up()
        yield started


def scaled(
    count: int, engine_ms: float | None, objective: Objective, first: float, seconds: float
) -> Scaled | None:
    """Ramp up a number of servers behind a haproxy; None if no rate met the objective."""
    measured = dict[float, Scaled]()
    with (
        tempfile.TemporaryDirectory() as name,
        servers(Path(name), count, engine_ms) as services,
        up(haproxy(Path(name), services)) as balancer,
    ):
        target = Target(f"http://127.0.0.1:{balancer.port}/detect", [PHOTO])
        metrics = [f"http://{each.host}:{each.port}/metrics" for each in services]

        def measure(rate: float) -> Step:
            before, cpu, times = spent_by(metrics), cpu_seconds(balancer), cpu_times()
            step = offer(find_k6(), target, objective, rate, seconds, Path(name))
            after, cpu_after, now = spent_by(metrics), cpu_seconds(balancer), cpu_times()
            cpu_ms = cpu_ms_of_image(before, after, step.good + step.late)
            step = replace(step, cpu_ms=cpu_ms)
            balancer_ms = 1000 * (cpu_after - cpu) / step.offered
            busy = usable_cpus() * (now.busy - times.busy) / (now.total - times.total)
            measured[rate] = Scaled(count, step, balancer_ms, busy)
            return step

        offer(find_k6(), target, objective, first, seconds / 2, Path(name))
        steps = list[Step]()
        for step in climb(measure, objective, Search(first * count)):
            print(line(step), flush=True)
            steps.append(step)
    best = greatest(steps, objective)
    return None if best is None else measured[best.rate]


def cpu_seconds(program: Program) -> float:
    """CPU time of a program's process so far, in seconds."""
    stat = Path(f"/proc/{program.process.pid}/stat").read_text(encoding="utf-8")
    return sum(map(int, stat.rpartition(")")[2].split()[11:13])) / TICKS_PER_S


def table(results: Sequence[Scaled]) -> str:
    """The results as a table in Markdown."""
    one = results[0].step.rate / results[0].servers if results else 1.0
    rows = [
        f"| {each.servers} | {each.step.rate:.1f} | {each.step.rate / one:.2f} "
        f"| {each.step.median_ms:.0f} | {each.step.p99_ms:.0f} | {each.step.cpu_ms or 0:.1f} "
        f"| {each.balancer_ms:.2f} | {each.busy_cpus:.2f} |"
        for each in results
    ]
    return "\n".join([HEADER, RULE, *rows])


def main(words: Sequence[str] | None = None) -> int:
    """Measure each number of servers; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--real", action="store_true", help="servers with the embedded model")
    parser.add_argument("--engine-ms", type=float, default=50.0, help="of an engine that sleeps")
    parser.add_argument("--slo-ms", type=float, default=300.0)
    parser.add_argument("--share", type=float, default=0.99)
    parser.add_argument("--first", type=float, default=8.0, help="first rate of each server")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a step")
    arguments = parser.parse_args(words)
    objective = Objective(arguments.slo_ms, arguments.share)
    engine_ms = None if arguments.real else arguments.engine_ms
    results = list[Scaled]()
    for count in arguments.servers:
        print(f"{count} behind haproxy\n{TITLES}")
        found = scaled(count, engine_ms, objective, arguments.first, arguments.seconds)
        if found is not None:
            results.append(found)
    print(f"\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
