"""The interface of a trial: its plan, its findings, and the row of its result."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.qa.rig.neighbours import Heard
from benchmarks.qa.rig.service import Service

MAX_PEAK_MIB: Final = 1024.0
# Where other programs take more of the CPUs, lateness says nothing.
MAX_OTHERS: Final = 0.2


@dataclass(frozen=True)
class Plan:
    """How a trial is to run.

    Attributes:
        seed: Decides every random choice; the same seed sends the same bytes.
        is_short: Whether it should end within some ten seconds.
        folder: Where logs and files go.
    """

    seed: int
    is_short: bool
    folder: Path

    def amount(self, long: int, short: int) -> int:
        """The one of two numbers that fits the length of the trial."""
        return short if self.is_short else long

    def rng(self, *names: object) -> random.Random:
        """Random numbers of their own for a part of a trial."""
        return random.Random(f"{self.seed} {names}")  # noqa: S311 - no secret


@dataclass(frozen=True)
class Row:
    """The result of a trial.

    Attributes:
        trial: Its name.
        tried: Number of requests, connections or clients.
        failed: A sentence for each answer that breaks a promise.
        lost: A sentence for each request that got no answer, and each server that ended.
        peak_mib: The most memory that one process of a server has had, in MiB.
        heard: The answers that good neighbours got meanwhile.
        notes: Figures that are no faults.
    """

    trial: str
    tried: int
    failed: tuple[str, ...]
    lost: tuple[str, ...]
    peak_mib: float
    heard: Heard
    notes: str = ""

    def is_good(self, others: float) -> bool:
        """Whether every promise was kept.

        Args:
            others: The share of the CPU time that other programs took, which makes answers late.
        """
        late = bool(self.heard.late) and others <= MAX_OTHERS
        return not (self.failed or self.lost or late or self.peak_mib > MAX_PEAK_MIB)


Trial = Callable[[Plan], Row]


@dataclass
class Findings:
    """The results of a trial while it runs.

    Attributes:
        statuses: Number of answers with each status.
    """

    tried: int = 0
    failed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def row(self, trial: str, heard: Heard, *services: Service) -> Row:
        """The result, with the faults that neighbours and the servers' logs tell of."""
        errors = [f"log: {line[:300]}" for each in services for line in each.errors()]
        ended = [f"{each.host} has ended" for each in services if each.process.poll() is not None]
        answers = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return Row(
            trial,
            self.tried,
            (*self.failed, *heard.wrong, *errors),
            (*self.lost, *heard.lost, *ended),
            max(each.peak_mib() for each in services),
            heard,
            answers,
        )


def together(trial: str, rows: Sequence[Row]) -> Row:
    """The rows of the parts of a trial as one."""
    heard = Heard(
        sum(row.heard.asked for row in rows),
        late=[seconds for row in rows for seconds in row.heard.late],
        slowest_s=max(row.heard.slowest_s for row in rows),
    )
    return Row(
        trial,
        sum(row.tried for row in rows),
        tuple(f"{row.trial}: {each}" for row in rows for each in row.failed),
        tuple(f"{row.trial}: {each}" for row in rows for each in row.lost),
        max(row.peak_mib for row in rows),
        heard,
        ", ".join(f"{row.trial}: {row.tried}" for row in rows),
    )
