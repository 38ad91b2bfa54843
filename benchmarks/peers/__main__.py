"""Our server beside what people would take instead: same model, photos, machine and boxes.

    python -m benchmarks.peers --model ADOPTED.onnx --peers-model KEPT.onnx --photos FOLDER
                               [--peers NAME ...] [--rounds 5]

The peers run a model as it was released (`adopt --keep-graph`), and ours what `adopt` makes of it.

Each peer gets an environment of its own (made once, in runs/peers), with pinned packages. First all
servers answer every photo, and must find the same boxes. Then, round after round, each is started,
warmed up, loaded with 1, 2, 4, ... requests in flight by wrk on this machine, and ended, so that
none pays for the others and all meet the same machine. Needs Linux, wrk, and the extras `cpu`,
`train` (for the plot) and `evaluate`.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.contenders import Contender, alone, one_per_cpu, ours, peers
from benchmarks.peers.host.environments import ensure_environment, pins
from benchmarks.peers.host.load import find_wrk, write_photo_list
from benchmarks.peers.host.machine import describe
from benchmarks.peers.inputs.preparing import find_photos, letterbox_of, read_contract
from benchmarks.peers.limit import Loop, loops
from benchmarks.peers.outcome.boxes import Box, average_precision
from benchmarks.peers.outcome.plot import draw_latencies
from benchmarks.peers.outcome.report import Report, to_json, to_markdown
from benchmarks.peers.outcome.results import ALONE, OURS, is_peer
from benchmarks.peers.session import Plan, check_boxes, find_boxes, measure
from model_export.errors import ModelExportError
from model_export.measure.coco import CocoSet, read_coco_set
from service.cpus import usable_cpus
from service.observe.logs import configure_logs

PEERS = tuple(peer.name for peer in peers(cpus=1))
# Ours, in the form in which it should find what the others do.
SQUARE = "ours-square"


def main() -> None:
    """Compare, and write the results."""
    arguments = _arguments()
    configure_logs("console", "warning")
    # So that the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: ended by SIGTERM"))
    try:
        report = _compare(arguments)
    except ModelExportError as error:
        raise SystemExit(f"error: {error}") from error
    output = arguments.output
    (output / "peers.json").write_text(to_json(report))
    (output / "peers.md").write_text(to_markdown(report))
    if report.runs:
        draw_latencies(report.runs, report.titles, output / "peers.png")
    print(f"\n{to_markdown(report)}")
    _say(f"written to {output}/peers.md, .json and .png")


def _compare(arguments: argparse.Namespace) -> Report:
    find_wrk()
    machine = describe()
    coco = read_coco_set(arguments.truth, arguments.photos) if arguments.truth else None
    model = str(arguments.model.resolve())
    contenders = [
        ours(model, _flags(arguments)),
        *([alone(model)] if arguments.ours is None else []),
        *(peer for peer in peers(machine.cpus) if peer.name in arguments.peers),
    ]
    turning = loops(machine.cpus)
    plan = _plan(arguments, contenders, coco)
    checked = plan if coco else replace(plan, photos=plan.photos[: arguments.checked])
    found = _find_all(contenders, checked, arguments, with_ours=coco is not None)
    reference = found.pop(SQUARE)
    agreements = check_boxes(reference, {name: found[name] for name in found if is_peer(name)})
    runs = measure(contenders, turning, plan, _say)
    environments = {each.environment for each in contenders if each.environment}
    size = sum(photo.stat().st_size for photo in plan.photos) / len(plan.photos)
    return Report(
        machine=machine,
        model=f"{plan.contract.name} {plan.contract.version}",
        photos=len(plan.photos),
        photo_kb=size / 1000,
        seconds=plan.seconds,
        rounds=plan.rounds,
        letterbox=plan.letterbox,
        titles=_titles(contenders, turning),
        contenders=contenders,
        packages={name: pins(name) for name in sorted(environments)},
        agreements=agreements,
        precisions=_precisions(coco, plan, found),
        runs=runs,
    )


def _plan(
    arguments: argparse.Namespace, contenders: Sequence[Contender], coco: CocoSet | None
) -> Plan:
    contract = read_contract(arguments.peers_model, arguments.model)
    photos = find_photos(list(coco.images.values()) if coco else arguments.photos)
    arguments.output.mkdir(parents=True, exist_ok=True)
    interpreters = {
        each.name: ensure_environment(each.environment, arguments.environments.resolve(), _say)
        if each.environment
        else Path(sys.executable)
        for each in contenders
    }
    return Plan(
        model=arguments.model,
        peers_model=arguments.peers_model,
        contract=contract,
        letterbox=letterbox_of(_flags(arguments), contract),
        photos=photos,
        photo_list=write_photo_list(photos, arguments.output / "photos.txt"),
        connections=arguments.connections,
        seconds=arguments.seconds,
        rounds=arguments.rounds,
        repeats=arguments.repeats,
        interpreters=interpreters | {SQUARE: Path(sys.executable)},
        logs=arguments.output,
    )


def _find_all(
    contenders: Sequence[Contender],
    plan: Plan,
    arguments: argparse.Namespace,
    *,
    with_ours: bool,
) -> dict[str, dict[str, list[Box]]]:
    """What each finds in every photo, ours with square letterboxes too."""
    flags = [*_flags(arguments), "--letterbox", "square"]
    square = ours(str(plan.model.resolve()), flags).renamed(SQUARE)
    found = {}
    for contender in (square, *contenders):
        if contender.name != ALONE and (contender.name != OURS or with_ours):
            found[contender.name] = find_boxes(contender, plan)
            boxes = sum(map(len, found[contender.name].values()))
            _say(f"{contender.name}: {boxes} boxes in {len(plan.photos)} photos")
    return found


def _precisions(
    coco: CocoSet | None, plan: Plan, found: Mapping[str, Mapping[str, Sequence[Box]]]
) -> dict[str, float]:
    if coco is None:
        return {}
    names = plan.contract.class_names
    return {
        contender: average_precision(
            coco, names, {image: boxes[path.name] for image, path in coco.images.items()}
        )
        for contender, boxes in found.items()
    }


def _titles(contenders: Sequence[Contender], turning: Sequence[Loop]) -> dict[str, str]:
    titles = {each.name: each.title for each in contenders}
    return titles | {loop.name: loop.title for loop in turning}


def _flags(arguments: argparse.Namespace) -> Sequence[str]:
    """Those of ours."""
    flags: str | None = arguments.ours
    return one_per_cpu(usable_cpus()) if flags is None else shlex.split(flags)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="ONNX file for ours")
    parser.add_argument(
        "--peers-model", type=Path, required=True, help="the same, adopted with --keep-graph"
    )
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--truth", type=Path, help="COCO annotations of them; adds AP")
    parser.add_argument("--checked", type=int, default=50, help="photos all must agree on")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument(
        "--ours",
        help="flags for ours (default: a process for each CPU, and beside it one for all)",
    )
    parser.add_argument("--connections", type=int, nargs="+", default=(1, 2, 4, 8, 16, 32))
    parser.add_argument("--seconds", type=float, default=10, help="length of a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="at most, of runs others disturb")
    parser.add_argument("--environments", type=Path, default=Path("runs/peers"))
    parser.add_argument("--output", type=Path, default=Path("runs/peers/results"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
