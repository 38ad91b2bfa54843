"""All that a comparison found, as Markdown for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.peers.contenders import Contender
from benchmarks.peers.host.machine import BFLOAT16_FLAGS, Machine
from benchmarks.peers.official import CONFIDENCE
from benchmarks.peers.outcome.boxes import Agreement
from benchmarks.peers.outcome.results import ALONE, OURS, Run, goals, typical
from benchmarks.peers.outcome.table import goals_list, remarks, results_table
from benchmarks.peers.served import Engine

METHOD: Final = (
    "wrk keeps a fixed number of requests in flight (one thread, keep-alive, raw JPEG bodies). It "
    "runs on the same machine, so every contender loses the same share of the CPU to it. Each "
    "contender runs alone: in each round it is started, warmed up, measured and ended, and each "
    "round begins with another contender. Runs that others on the machine disturb are repeated. "
    "Numbers are medians over the rounds. Those in parentheses are medians of the ratios to the "
    "fastest peer of the same round. Memory is the largest sum of the proportional set sizes (PSS) "
    "of a contender's processes, and CPU time is that of all of them, from /proc. Loops are our "
    "server's own stages and engine without HTTP; plain loops have an ONNX Runtime session with "
    "its defaults in the place of the engine."
)


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """The model that all contenders serve.

    Attributes:
        file: Name of the file.
        name: Name in its contract.
        version: Version in its contract.
        height: Usual height of the network's input, in pixels.
        width: Usual width, in pixels.
        dynamic_size: Whether it takes other sizes, too.
        peers_changes: The differences of the file that the peers run, a phrase each.
        peers_difference: Largest difference of the two files' rows, relative above 1.
    """

    file: str
    name: str
    version: str
    height: int
    width: int
    dynamic_size: bool
    peers_changes: Sequence[str]
    peers_difference: float


@dataclass(frozen=True, slots=True)
class Report:
    """A whole comparison.

    Attributes:
        machine: The machine that it ran on.
        model: The model.
        engines: The statements of our server in each round, in each of its forms. Without rounds,
            its statement when boxes were compared.
        photos: How many photos were sent in turn.
        photo_kb: Their mean size, in 1000 bytes.
        seconds: Length of a run.
        rounds: How often each contender was measured.
        letterbox: How our server fits images into the network's input.
        titles: Contender, loops included, to its name in the table.
        contenders: The servers and their settings.
        packages: Environment to the packages pinned in it.
        agreements: Contender to how well its boxes agree with ours.
        precisions: Contender to its AP, where there are annotations.
        runs: All that was measured.
    """

    machine: Machine
    model: MeasuredModel
    engines: Mapping[str, Sequence[Engine]]
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
    """The table, the goals, and how the comparison was made."""
    parts = [
        _where(report),
        results_table(report.runs, report.titles, _corner(report.model)) if report.runs else "",
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


def _corner(model: MeasuredModel) -> str:
    return f"{model.file}, {model.height}x{model.width}"


def _where(report: Report) -> str:
    machine, model = report.machine, report.model
    flags = ", ".join(machine.flags) or f"neither {' nor '.join(BFLOAT16_FLAGS)}"
    size = f"{model.height}x{model.width} {'or other sizes' if model.dynamic_size else 'only'}"
    facts = {
        "Model": f"{model.file} ({model.name} {model.version}), {size}",
        "CPU": f"{machine.cpus} x {machine.cpu} ({flags})",
        "Engine of ours and of the loops": _engines(report, OURS),
        "Engine of ours, one process": _engines(report, ALONE),
        "Engine of the peers": f"ONNX Runtime (CPUExecutionProvider); {_form(model)}",
        "Machine": f"{machine.memory_gib:g} GiB, {machine.system}, Python {machine.python}, "
        f"{machine.date}",
        "Photos": f"{report.photos}, of {report.photo_kb:.0f} kB on average; rounds: "
        f"{report.rounds}, with runs of {report.seconds:g} s; letterboxes of ours: "
        f"{report.letterbox}, of the others: square",
    }
    return "\n".join(f"- {name}: {text}" for name, text in facts.items() if text)


def _engines(report: Report, contender: str) -> str:
    return "; in other rounds ".join(dict.fromkeys(map(str, report.engines.get(contender, ()))))


def _form(model: MeasuredModel) -> str:
    if not model.peers_changes:
        return "their file has the same form"
    changes = ", ".join(model.peers_changes)
    return f"their file has {changes}, and rows that differ by {model.peers_difference:.1e} at most"


def _boxes(agreements: Mapping[str, Agreement]) -> str:
    if not agreements:
        return ""
    compared = max(agreement.compared for agreement in agreements.values())
    allowed = next(iter(agreements.values())).tolerance
    if not compared:
        return (
            f"No server found a box above {allowed.least_score}, so the boxes agree, but that "
            "shows little."
        )
    missing = max(len(agreement.differences) for agreement in agreements.values())
    least = min(agreement.least_iou for agreement in agreements.values())
    gap = max(agreement.most_score_gap for agreement in agreements.values())
    return (
        f"Same boxes: of the {compared} boxes above {allowed.least_score}, of either side, "
        f"{f'all but {missing} have' if missing else 'each has'} a partner of its class with an "
        f"IoU of {allowed.least_iou} or more on the other side, where ours fits images into "
        f"squares as the others do. The smallest IoU is {least:.4f}, the largest difference of "
        f"scores {gap:.4f}."
    )


def _precisions(report: Report) -> str:
    if not report.precisions:
        return ""
    each = (f"{report.titles[name]} {value:.4f}" for name, value in report.precisions.items())
    return f"COCO AP of the answers, which leave out boxes below {CONFIDENCE}: {', '.join(each)}."


def _settings(contender: Contender, packages: Mapping[str, Sequence[str]]) -> str:
    pinned = ", ".join(packages.get(contender.environment or "", ()))
    return f"- {contender.title}: {contender.settings}{f' ({pinned})' if pinned else ''}"
