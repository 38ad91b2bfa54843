"""All that a comparison found, as Markdown for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.peers.contenders import Contender
from benchmarks.peers.host.machine import Machine
from benchmarks.peers.official import CONFIDENCE
from benchmarks.peers.outcome.boxes import LEAST_IOU, LEAST_SCORE, Agreement
from benchmarks.peers.outcome.results import Run, goals, typical
from benchmarks.peers.outcome.table import goals_list, remarks, results_table

METHOD: Final = (
    "Closed loop by wrk (one thread, keep-alive, raw JPEG bodies) on the same machine, so that its "
    "share of the CPU is everybody's loss. Each contender runs alone: in each round it is started, "
    "warmed up, measured and ended, and the next round begins with the next one; runs that others "
    "on the machine disturb are repeated. Numbers are medians over the rounds, those in "
    "parentheses medians of each round's ratio to its fastest peer. Memory is the largest sum of "
    "the proportional set sizes (PSS) of a contender's processes, CPU time is from /proc, of all "
    "of them together. Loops are our pipeline without HTTP."
)


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison, whole.

    Attributes:
        machine: Where it was made.
        model: Name and version of the model.
        photos: How many were sent in turn.
        photo_kb: Their mean size, in 1000 bytes.
        seconds: Length of a run.
        rounds: Turns of each contender.
        letterbox: How ours fitted images into the network's input.
        titles: Contender, loops included, to its name in the table.
        contenders: The servers and their settings.
        packages: Environment to what is pinned in it.
        agreements: Contender to how its boxes agree with ours.
        precisions: Contender to its AP, where there is a truth.
        runs: All that was measured.
    """

    machine: Machine
    model: str
    photos: int
    photo_kb: float
    seconds: float
    rounds: int
    letterbox: str
    titles: Mapping[str, str]
    contenders: Sequence[Contender]
    packages: Mapping[str, Sequence[str]]
    agreements: Mapping[str, Agreement]
    precisions: Mapping[str, float]
    runs: Sequence[Run]


def to_markdown(report: Report) -> str:
    """The table, the goals, and how it was all done."""
    parts = [
        _where(report),
        results_table(report.runs, report.titles) if report.runs else "",
        goals_list(report.runs),
        "\n".join(f"- {line}" for line in remarks(report.runs)),
        _boxes(report.agreements),
        _precisions(report),
        METHOD,
        "\n".join(_settings(contender, report.packages) for contender in report.contenders),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_json(report: Report) -> str:
    """Everything, with the medians and the goals that follow from the runs."""
    derived = {
        "typical": [asdict(entry) for entry in typical(report.runs)],
        "goals": [asdict(goal) for goal in goals(report.runs)],
    }
    return json.dumps(asdict(report) | derived, indent=1) + "\n"


def _where(report: Report) -> str:
    machine = report.machine
    return (
        f"{machine.date}, {machine.cpus} CPUs ({machine.cpu}), {machine.memory_gib:g} GiB, "
        f"{machine.system}, Python {machine.python}. {report.model}, {report.photos} photos of "
        f"{report.photo_kb:.0f} kB on average, {report.rounds} rounds of {report.seconds:g} s; "
        f"ours with {report.letterbox} letterboxes, the others with square ones."
    )


def _boxes(agreements: Mapping[str, Agreement]) -> str:
    if not agreements:
        return ""
    compared = max(agreement.compared for agreement in agreements.values())
    least = min(agreement.least_iou for agreement in agreements.values())
    gap = max(agreement.most_score_gap for agreement in agreements.values())
    return (
        f"Same boxes: each of the {compared} boxes above {LEAST_SCORE}, of either side, has a "
        f"partner of its class with an IoU of {LEAST_IOU} or more where ours fits images into "
        f"squares as the others do. The smallest IoU is {least:.4f}, the largest difference of "
        f"scores {gap:.4f}."
    )


def _precisions(report: Report) -> str:
    if not report.precisions:
        return ""
    each = (f"{report.titles[name]} {value:.4f}" for name, value in report.precisions.items())
    return f"COCO AP of the answers, boxes of less than {CONFIDENCE} left out: {', '.join(each)}."


def _settings(contender: Contender, packages: Mapping[str, Sequence[str]]) -> str:
    pinned = ", ".join(packages.get(contender.environment or "", ()))
    return f"- {contender.title}: {contender.settings}{f' ({pinned})' if pinned else ''}"
