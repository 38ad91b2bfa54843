"""The CPU time of a request before and after a change: the servers of two checkouts in turns.

    git worktree add ../before COMMIT
    python benchmarks/before_and_after.py ../before [--forms raw multipart] [--starts 6] [--turns 4]

Both servers run at once and are loaded one after the other, in turns of a few seconds, as
`overhead.py` loads its own. One start of a server differs from the next by some 5 % although
nothing was changed, so both are started anew several times; each start gives one ratio. The limit
on the median of the ratios is 1.02. Each checkout brings its own `benchmarks/overhead_servers.py`.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from overhead import BODIES, Body, Server, image_file
from overhead_servers import Processes

LIMIT = 1.02
SERVE = """
import sys
from overhead_servers import Service, serving
if __name__ == "__main__":
    with serving(Service(int(sys.argv[1]), "info"), 1) as processes:
        print(processes.port, *processes.ids, flush=True)
        sys.stdin.read()
"""


def main() -> int:
    """Measure, and print the ratios; the exit code is 1 if a median is above the limit."""
    arguments = _arguments()
    checkouts = [arguments.before.resolve(), arguments.after.resolve()]
    failed = False
    for form in arguments.forms:
        body = BODIES[form](image_file("bmp"))
        starts = [_one_start(checkouts, body, arguments) for _ in range(arguments.starts)]
        before, after = (statistics.median(costs) for costs in zip(*starts, strict=True))
        ratios = [one / other for other, one in starts]
        median = statistics.median(ratios)
        failed |= median > LIMIT
        listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{form}: {before:.0f} us of CPU time before, {after:.0f} after; starts {listed}")
        print(f"  ratio {median:.3f}, limit {LIMIT}", flush=True)
    return int(failed)


def _one_start(
    checkouts: Sequence[Path], body: Body, arguments: argparse.Namespace
) -> tuple[float, float]:
    """Microseconds of CPU time of a request in each of two servers that were started just now."""
    with ExitStack() as stack:
        servers = [Server(stack.enter_context(_serving(each, arguments))) for each in checkouts]
        costs: list[list[float]] = [[], []]
        for turn in range(arguments.turns):
            for number in (0, 1) if turn % 2 else (1, 0):
                load = servers[number].load(body, arguments.seconds, arguments.connections)
                costs[number].append(load.cpu_us)
    return statistics.median(costs[0]), statistics.median(costs[1])


@contextmanager
def _serving(checkout: Path, arguments: argparse.Namespace) -> Iterator[Processes]:
    """The server of a checkout, in processes of its own."""
    path = os.pathsep.join([str(checkout), str(checkout / "benchmarks")])
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", SERVE, str(arguments.boxes)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        told = program.stdout.readline() if program.stdout else ""
        if not told:
            raise SystemExit(f"error: the server of {checkout} did not start")
        port, *ids = map(int, told.split())
        try:
            yield Processes(port, tuple(ids))
        finally:
            # Its end of input is the sign to stop.
            if program.stdin:
                program.stdin.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="checkout of the state before")
    parser.add_argument("after", type=Path, nargs="?", default=Path(__file__).parents[1])
    parser.add_argument("--forms", nargs="+", choices=BODIES, default=list(BODIES))
    parser.add_argument("--boxes", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--turns", type=int, default=4, help="of each server, after each start")
    parser.add_argument("--seconds", type=float, default=2, help="length of a turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
