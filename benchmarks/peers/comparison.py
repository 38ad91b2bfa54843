"""A whole comparison: prepare the model and servers, compare the boxes, measure the speeds."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.arguments import Arguments
from benchmarks.peers.contenders import Contender, alone, ours, peers
from benchmarks.peers.host.environments import ensure_environment, pins
from benchmarks.peers.host.load import find_wrk, write_photo_list
from benchmarks.peers.host.machine import Machine, describe
from benchmarks.peers.inputs.peers_model import PeersModel, make_peers_model
from benchmarks.peers.inputs.preparing import (
    check_same_weights,
    comparable_photos,
    find_photos,
    letterbox_of,
    read_contract,
)
from benchmarks.peers.loops import Loop, loops
from benchmarks.peers.outcome.boxes import (
    Agreement,
    Box,
    Tolerance,
    average_precision,
    tolerance_of,
)
from benchmarks.peers.outcome.report import MeasuredModel, Report
from benchmarks.peers.outcome.results import OURS, is_peer
from benchmarks.peers.served import Engine, ask_engine
from benchmarks.peers.session import Plan, Say, check_boxes, find_boxes, measure, serving
from model_export.measure.coco import CocoSet, read_coco_set
from service.core.contract import ModelContract

# Our server with square letterboxes, as the peers have them.
SQUARE: Final = "ours-square"

Found = dict[str, dict[str, list[Box]]]


def run_comparison(arguments: Arguments, say: Say) -> Report:
    """Run a comparison; gives its report.

    Args:
        arguments: The contenders, and how to compare them.
        say: Called with each line about the progress.

    Raises:
        ModelExportError: Something is missing, a server fails, or one finds other boxes.
    """
    find_wrk()
    machine = describe()
    contract = read_contract(arguments.model)
    peers_model = _make_peers_model(arguments, say)
    coco = read_coco_set(arguments.truth, arguments.photos) if arguments.truth else None
    contenders = _contenders(arguments, machine)
    plan = _plan(arguments, contenders, peers_model, coco, say)
    most = len(plan.photos) if coco else arguments.checked
    checked = comparable_photos(plan.photos, contract, most)
    found, engine = _find_boxes(contenders, plan, plan.photos if coco else checked, say)
    agreements = _agreements(found, checked, tolerance_of(engine.precision))
    precisions = _precisions(coco, contract, contenders, found, plan)
    turning = loops(machine.cpus)
    measured = measure(contenders, turning, plan, say)
    environments = {each.environment for each in contenders if each.environment}
    return Report(
        machine=machine,
        model=_describe_model(arguments.model, contract, peers_model),
        engines=measured.engines or {OURS: [engine]},
        photos=len(plan.photos),
        photo_kb=sum(photo.stat().st_size for photo in plan.photos) / len(plan.photos) / 1000,
        seconds=plan.seconds,
        rounds=plan.rounds,
        letterbox=letterbox_of(plan.flags, contract),
        titles=_titles(contenders, turning),
        contenders=contenders,
        packages={name: pins(name) for name in sorted(environments)},
        agreements=agreements,
        precisions=precisions,
        runs=measured.runs,
    )


def _make_peers_model(arguments: Arguments, say: Say) -> PeersModel:
    source = arguments.peers_model or arguments.model
    check_same_weights(arguments.model, source)
    arguments.output.mkdir(parents=True, exist_ok=True)
    made = make_peers_model(source, arguments.output / "peers.onnx")
    changes = ", ".join(made.changes) or "no changes"
    say(f"the peers' model has {changes}; its rows differ by {made.difference:.1e} at most")
    return made


def _contenders(arguments: Arguments, machine: Machine) -> list[Contender]:
    model = str(arguments.model.resolve())
    chosen = [peer for peer in peers(machine.cpus) if peer.name in arguments.peers]
    beside = [alone(model)] if arguments.ours is None else []
    return [ours(model, arguments.flags), *beside, *chosen]


def _plan(
    arguments: Arguments,
    contenders: Sequence[Contender],
    peers_model: PeersModel,
    coco: CocoSet | None,
    say: Say,
) -> Plan:
    photos = find_photos(list(coco.images.values()) if coco else arguments.photos)
    interpreters = {
        each.name: ensure_environment(each.environment, arguments.environments.resolve(), say)
        if each.environment
        else Path(sys.executable)
        for each in contenders
    }
    return Plan(
        model=arguments.model.resolve(),
        peers_model=peers_model.path,
        flags=arguments.flags,
        photos=photos,
        photo_list=write_photo_list(photos, arguments.output / "photos.txt"),
        concurrency=arguments.concurrency,
        seconds=arguments.seconds,
        warm_up=arguments.warm_up,
        rounds=arguments.rounds,
        repeats=arguments.repeats,
        interpreters=interpreters | {SQUARE: Path(sys.executable)},
        logs=arguments.output,
    )


def _find_boxes(
    contenders: Sequence[Contender], plan: Plan, photos: Sequence[Path], say: Say
) -> tuple[Found, Engine]:
    """The boxes that each server finds in the photos, and the engine that ours states.

    Our server uses square letterboxes here, as the peers do.
    """
    model, flags = str(plan.model), [*plan.flags, "--letterbox", "square"]
    square = ours(model, flags).renamed(SQUARE)
    found: Found = {}
    with serving(square, plan) as server:
        engine = ask_engine(server)
        say(f"our server runs {engine}")
        found[SQUARE] = find_boxes(square, server, photos)
    for contender in contenders:
        if is_peer(contender.name):
            with serving(contender, plan) as server:
                found[contender.name] = find_boxes(contender, server, photos)
    for name, boxes in found.items():
        say(f"{name}: {sum(map(len, boxes.values()))} boxes in {len(photos)} photos")
    return found, engine


def _agreements(
    found: Mapping[str, Mapping[str, Sequence[Box]]],
    checked: Sequence[Path],
    tolerance: Tolerance,
) -> dict[str, Agreement]:
    """How well each peer's boxes agree with ours, in the photos that can be compared."""
    reference = {photo.name: found[SQUARE][photo.name] for photo in checked}
    others = {name: found[name] for name in found if name != SQUARE}
    return check_boxes(reference, others, tolerance)


def _precisions(
    coco: CocoSet | None,
    contract: ModelContract,
    contenders: Sequence[Contender],
    found: Found,
    plan: Plan,
) -> dict[str, float]:
    """The AP of our server, as it is measured, and of the peers; empty without annotations."""
    if coco is None:
        return {}
    (measured,) = (each for each in contenders if each.name == OURS)
    with serving(measured, plan) as server:
        answered = {OURS: find_boxes(measured, server, plan.photos)}
    answered |= {name: boxes for name, boxes in found.items() if name != SQUARE}
    return {
        name: average_precision(
            coco,
            contract.class_names,
            {image: boxes[path.name] for image, path in coco.images.items()},
        )
        for name, boxes in answered.items()
    }


def _describe_model(file: Path, contract: ModelContract, peers_model: PeersModel) -> MeasuredModel:
    spec = contract.input
    return MeasuredModel(
        file=file.name,
        name=contract.name,
        version=contract.version,
        height=spec.height,
        width=spec.width,
        dynamic_size=spec.dynamic_size,
        peers_changes=peers_model.changes,
        peers_difference=peers_model.difference,
    )


def _titles(contenders: Sequence[Contender], turning: Sequence[Loop]) -> dict[str, str]:
    titles = {each.name: each.title for each in contenders}
    return titles | {loop.name: loop.title for loop in turning}
