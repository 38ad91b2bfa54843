"""A closed loop of requests by wrk: their number in flight is fixed."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.host.machine import cpu_times, foreign_share
from benchmarks.peers.host.processes import RunningServer
from benchmarks.peers.outcome.results import Run
from model_export.errors import ModelExportError

SCRIPT: Final = Path(__file__).with_name("cycle.lua")
TIMEOUT: Final = "30s"


@dataclass(frozen=True, slots=True)
class Load:
    """The photos to send, and how long to send them.

    Attributes:
        photo_list: A file with the path of one JPEG per line.
        seconds: Length of a run; wrk takes whole seconds.
    """

    photo_list: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class WrkOutcome:
    """The figures that wrk reports of a run; the attributes are those of `Run`."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p90_ms: float
    p99_ms: float


def find_wrk() -> str:
    """The path of wrk.

    Raises:
        ModelExportError: It is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise ModelExportError(
            "wrk, which makes the load, is not installed; Debian and Ubuntu: apt-get install wrk"
        )
    return path


def run_load(
    server: RunningServer, path: str, load: Load, *, contender: str, turn: int, connections: int
) -> Run:
    """Load a server that is ready, and measure what that costs.

    Raises:
        ModelExportError: wrk fails, or no request is answered with 200.
    """
    before, contender_before = cpu_times(), server.cpu_seconds()
    outcome = run_wrk(f"http://127.0.0.1:{server.port}{path}", load, connections)
    contender_s, after = server.cpu_seconds() - contender_before, cpu_times()
    if outcome.requests <= outcome.errors:
        raise ModelExportError(
            f"{contender} gave no good answer at c={connections}: {outcome.errors} errors and no "
            f"other answer within {outcome.seconds:.1f} s; --seconds makes runs longer"
        )
    return Run(
        contender=contender,
        round=turn,
        connections=connections,
        requests=outcome.requests,
        seconds=outcome.seconds,
        errors=outcome.errors,
        p50_ms=outcome.p50_ms,
        p90_ms=outcome.p90_ms,
        p99_ms=outcome.p99_ms,
        cpu_ms=1000 * contender_s / outcome.requests,
        memory_mib=server.memory_mib(),
        foreign_share=foreign_share(before, after, contender_s),
    )


def run_wrk(url: str, load: Load, connections: int) -> WrkOutcome:
    """One run of wrk on one thread, which is far from busy.

    Raises:
        ModelExportError: wrk fails.
    """
    duration = f"{max(1, round(load.seconds))}s"
    # One connection per request in flight.
    options = ["-t", "1", "-c", str(connections), "-d", duration, "--timeout", TIMEOUT]
    command = [find_wrk(), *options, "-s", str(SCRIPT), url, "--", str(load.photo_list)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ModelExportError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return read_outcome(done.stdout)


def read_outcome(output: str) -> WrkOutcome:
    """The outcome in the last line that wrk printed, which is that of `cycle.lua`.

    Raises:
        ModelExportError: There is none.
    """
    try:
        return WrkOutcome(**json.loads(output.splitlines()[-1]))
    except (IndexError, ValueError, TypeError) as error:
        raise ModelExportError(f"wrk printed no outcome: {output!r}") from error


def write_photo_list(photos: Sequence[Path], path: Path) -> Path:
    """Write the file for `Load.photo_list`."""
    path.write_text("".join(f"{photo.resolve()}\n" for photo in photos))
    return path
