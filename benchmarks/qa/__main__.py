"""Trials of a running server: hostile input, slow clients, kills, restarts, a soak.

    python -m benchmarks.qa [--short] [--seed 1] [TRIAL ...]

A trial breaks where an answer is wrong, undocumented or late, where one is lost, or where a process
takes more than 1 GiB. The exit code is then 1. Logs and the input of each fault stay in --output.
"Others" is the share of the CPUs that other programs took; above a fifth, late answers pass.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.peers.host.machine import cpu_times, foreign_share
from benchmarks.qa.bombs import bombs
from benchmarks.qa.fuzz_bodies import fuzz_bodies
from benchmarks.qa.fuzz_http import fuzz_http
from benchmarks.qa.fuzz_images import fuzz_images
from benchmarks.qa.kills import kills
from benchmarks.qa.rig.programs import MissingProgramError
from benchmarks.qa.rolling import rolling
from benchmarks.qa.slow_clients import slow_clients
from benchmarks.qa.soak import soak
from benchmarks.qa.trial import Plan, Row, Trial

TRIALS: Final[dict[str, Trial]] = {
    trial.__name__: trial
    for trial in (
        *(fuzz_images, fuzz_bodies, fuzz_http, slow_clients),
        *(bombs, kills, rolling, soak),
    )
}
LONG_LIMIT_S: Final = 1200
SHORT_LIMIT_S: Final = 600
SHOWN_FAULTS: Final = 5
TITLES: Final = (
    *("trial", "tried", "failed", "lost", "peak MiB", "s", "others"),
    *("neighbours asked", "late", "slowest s", ""),
)
FORM: Final = "{:12} {:>6} {:>6} {:>5} {:>8} {:>5} {:>6} {:>16} {:>5} {:>9}  {}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the trials; gives the exit code."""
    arguments = _arguments(words)
    limit_s = SHORT_LIMIT_S if arguments.short else LONG_LIMIT_S
    print(FORM.format(*TITLES))
    verdicts = list[bool]()
    try:
        with _time_limit(limit_s):
            verdicts.extend(_run(name, arguments) for name in arguments.trials or TRIALS)
    except TimeoutError:
        print(f"error: the trials took longer than {limit_s} s")
        return 1
    return 0 if all(verdicts) else 1


def _run(name: str, arguments: argparse.Namespace) -> bool:
    """Run a trial and print its row; gives whether all was well."""
    folder = arguments.output / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began, clocks = time.monotonic(), cpu_times()
    try:
        row = TRIALS[name](Plan(arguments.seed, arguments.short, folder.resolve()))
    except MissingProgramError as error:
        print(f"{name:13} skipped: {error}", flush=True)
        return True
    others = foreign_share(clocks, cpu_times(), contender_s=0)
    _show(row, time.monotonic() - began, others)
    return row.is_good(others)


def _show(row: Row, seconds: float, others: float) -> None:
    figures = (row.tried, len(row.failed), len(row.lost), f"{row.peak_mib:.0f}")
    clocks = (f"{seconds:.0f}", f"{others:.0%}")
    heard = (row.heard.asked, len(row.heard.late), f"{row.heard.slowest_s:.2f}")
    print(FORM.format(row.trial, *figures, *clocks, *heard, row.notes))
    for fault in [*row.failed, *row.lost][:SHOWN_FAULTS]:
        print(f"    {fault}")
    sys.stdout.flush()


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.qa",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}")
    parser.add_argument("--short", action="store_true", help="about a minute in all, as in CI")
    parser.add_argument("--seed", type=int, default=1, help="decides what is sent (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("runs/qa"), help="folder of the logs")
    arguments = parser.parse_args(words)
    for name in arguments.trials:
        if name not in TRIALS:
            parser.error(f"there is no trial {name}; there are {', '.join(TRIALS)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
