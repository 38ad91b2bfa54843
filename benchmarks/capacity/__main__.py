"""The greatest rate that a server, or a fleet behind a balancer, answers within an objective.

    python -m benchmarks.capacity http://127.0.0.1:8000 --slo-ms 200
    make capacity URL=http://127.0.0.1:8000 SLO_MS=200

Requests arrive at random at a given rate, whether or not earlier ones are answered. The rate goes
up until fewer than --share of the requests are answered in time, and the search goes on between the
last two rates. A request that is refused, or not sent because too many wait, was not answered in
time. Results and the plot go to --output.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from benchmarks.capacity.k6 import LoadError, Target, find_k6, offer
from benchmarks.capacity.plan import LOADS
from benchmarks.capacity.plot import draw
from benchmarks.capacity.ramp import Search, climb, greatest
from benchmarks.capacity.report import TITLES, line, summary
from benchmarks.capacity.servers import Spent, cpu_ms_of_image, spent_by
from benchmarks.capacity.step import Objective, Step
from benchmarks.qa.rig.programs import MissingProgramError

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
USUAL_PHOTOS: Final = ("coffee.jpg", "parcel.jpg", "shelf.jpg", "ticket.jpg")
# k6 keeps them in memory once for each request in flight.
MAX_PHOTOS: Final = 8
NO_RATE: Final = 1
FAILED: Final = 2


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a ramp; the exit code is 1 if no rate met the objective, 2 if it cannot be done."""
    arguments = _arguments(words)
    objective = Objective(arguments.slo_ms, arguments.share)
    search = Search(arguments.first, limit=arguments.limit)
    arguments.output.mkdir(parents=True, exist_ok=True)
    steps = list[Step]()
    try:
        measure = _measure(arguments, objective)
        print(TITLES)
        for step in climb(measure, objective, search):
            print(line(step), flush=True)
            steps.append(step)
    except (MissingProgramError, LoadError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    best = greatest(steps, objective)
    print(f"\n{summary(best, objective, arguments.load or LOADS)}")
    _keep(steps, objective, best, arguments.output)
    return NO_RATE if best is None else 0


def _measure(arguments: argparse.Namespace, objective: Objective) -> Callable[[float], Step]:
    """The function that offers a rate to the server, and reads its cost from the servers."""
    k6, target = find_k6(), _target(arguments)
    addresses = arguments.metrics or [f"{arguments.url.rstrip('/')}/metrics"]

    def measure(rate: float) -> Step:
        before = _spent(addresses)
        step = offer(k6, target, objective, rate, arguments.seconds, arguments.output)
        after = _spent(addresses)
        if before is None or after is None:
            return step
        return replace(step, cpu_ms=cpu_ms_of_image(before, after, step.good + step.late))

    # Connections, caches and sizes that the engine has not seen are made here.
    offer(k6, target, objective, arguments.first, arguments.warm_up, arguments.output)
    return measure


def _spent(addresses: Sequence[str]) -> Spent | None:
    try:
        return spent_by(addresses)
    except (OSError, ValueError):
        return None


def _target(arguments: argparse.Namespace) -> Target:
    photos = [EXAMPLES / name for name in USUAL_PHOTOS]
    if arguments.photos is not None:
        photos = sorted(arguments.photos.glob("*.jpg"))[:MAX_PHOTOS]
    key = os.environ.get("YOLOX_API_KEY")
    headers = {"X-API-Key": key} if key else {}
    return Target(f"{arguments.url.rstrip('/')}/detect", photos, headers)


def _keep(steps: Sequence[Step], objective: Objective, best: Step | None, folder: Path) -> None:
    (folder / "summary.json").unlink(missing_ok=True)
    told = {
        "objective": asdict(objective),
        "greatest_rate": None if best is None else best.rate,
        "steps": [asdict(step) | {"unsent": step.unsent} for step in steps],
    }
    (folder / "capacity.json").write_text(json.dumps(told, indent=1) + "\n")
    draw(steps, objective, best, folder / "capacity.png")
    print(f"\n{folder}/capacity.json has the steps, {folder}/capacity.png shows them")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.capacity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", help="address of the server or of its balancer")
    parser.add_argument("--slo-ms", type=float, default=200.0, help="time to an answer")
    parser.add_argument("--share", type=float, default=0.99, help="of the requests, 0 to 1")
    parser.add_argument("--first", type=float, default=5.0, help="first rate, images a second")
    parser.add_argument("--limit", type=float, default=20_000.0, help="no rate is higher")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a step")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds at the first rate")
    parser.add_argument("--photos", type=Path, help="folder of JPEG files (unset: the examples)")
    parser.add_argument(
        "--metrics", nargs="*", help="address of every server's /metrics (unset: that of the URL)"
    )
    parser.add_argument("--load", type=float, nargs="*", help="images a second to plan for")
    parser.add_argument("--output", type=Path, default=Path("runs/capacity"))
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
