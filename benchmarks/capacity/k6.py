"""Steps of a ramp by k6, which sends requests when they are due, however late the answers are."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.capacity.step import Objective, Step
from benchmarks.qa.rig.programs import MissingProgramError

SCRIPT: Final = Path(__file__).with_name("load.js")
UNPACKED: Final = Path(sys.prefix) / "k6" / "k6"
# Requests are sent up to this much later than evenly spaced, so that some come together.
JITTER_MS: Final = 500.0
TIMEOUT_OF_SLO: Final = 10.0
MIN_TIMEOUT_MS: Final = 2000.0
# Each has its own copies of the photos.
MAX_CLIENTS: Final = 2000
# k6 ends with this code where a threshold failed; there is none here.
ENDED: Final = 0


class LoadError(Exception):
    """k6 could not do its work; the message is its own."""


@dataclass(frozen=True, slots=True)
class Target:
    """The receiver of the requests.

    Attributes:
        url: Where images are sent, such as `http://127.0.0.1:8000/detect`.
        photos: Image files, of which each request sends one.
        headers: Headers of each request.
    """

    url: str
    photos: Sequence[Path]
    headers: Mapping[str, str] = field(default_factory=dict)


def find_k6() -> Path:
    """Path of k6: the machine's, else the one that make unpacked.

    Raises:
        MissingProgramError: There is neither.
    """
    found = shutil.which("k6") or (str(UNPACKED) if UNPACKED.is_file() else None)
    if found is None:
        raise MissingProgramError("k6 is not installed, and make could not unpack it")
    return Path(found)


def offer(
    k6: Path, target: Target, objective: Objective, rate: float, seconds: float, folder: Path
) -> Step:
    """Send requests at a rate.

    Args:
        k6: The program.
        target: The receiver of the requests.
        objective: The definition of good service.
        rate: Requests in a second.
        seconds: For how long.
        folder: Where k6 writes its summary.

    Raises:
        LoadError: k6 could not do its work.
    """
    summary = folder / "summary.json"
    summary.unlink(missing_ok=True)
    described = described_step(target, objective, rate, seconds, summary)
    command = [str(k6), "run", "--quiet", "--no-usage-report", "--address", "", str(SCRIPT)]
    environment = os.environ | {"STEP": json.dumps(described)}
    ended = subprocess.run(  # noqa: S603 - a command of this module
        command, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode != ENDED or not summary.is_file():
        raise LoadError(f"k6 ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return read_summary(json.loads(summary.read_text()), rate, seconds)


def described_step(
    target: Target, objective: Objective, rate: float, seconds: float, summary: Path
) -> dict[str, Any]:
    """A step as the script takes it."""
    timeout_ms = max(MIN_TIMEOUT_MS, TIMEOUT_OF_SLO * objective.slo_ms)
    usual_s = (objective.slo_ms + JITTER_MS) / 1000
    longest_s = (timeout_ms + JITTER_MS) / 1000
    most = min(MAX_CLIENTS, math.ceil(rate * longest_s) + 1)
    return {
        "url": target.url,
        "photos": [str(path.resolve()) for path in target.photos],
        "headers": {"Content-Type": "image/jpeg", **target.headers},
        "rate": rate,
        "seconds": seconds,
        "sloMs": objective.slo_ms,
        "timeoutMs": timeout_ms,
        "jitterMs": JITTER_MS,
        "clients": min(most, math.ceil(rate * usual_s) + 1),
        "maxClients": most,
        "summary": str(summary),
    }


def read_summary(metrics: Mapping[str, Any], rate: float, seconds: float) -> Step:
    """The step that k6's summary tells of.

    Args:
        metrics: The `metrics` of k6's summary.
        rate: Requests in a second that were offered.
        seconds: For how long.
    """

    def count(name: str) -> int:
        return int(metrics.get(name, {}).get("values", {}).get("count", 0))

    times = metrics.get("answered", {}).get("values", {})
    ended = sum(map(count, ("good", "late", "refused", "failed")))
    return Step(
        rate=rate,
        # k6 may send one more, at the very end.
        offered=max(1, round(rate * seconds), ended),
        good=count("good"),
        late=count("late"),
        refused=count("refused"),
        failed=count("failed"),
        median_ms=float(times.get("med", 0.0)),
        p99_ms=float(times.get("p(99)", 0.0)),
    )
