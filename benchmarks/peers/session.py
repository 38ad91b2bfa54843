"""The measurements: in each round every contender in turn, alone on the machine."""

import contextlib
import http.client
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.peers.contenders import Contender
from benchmarks.peers.host.load import Load, run_load, run_wrk
from benchmarks.peers.host.processes import RunningServer
from benchmarks.peers.loops import Loop, run_loop
from benchmarks.peers.outcome.boxes import EXACT, Agreement, Box, Tolerance, compare, read_answer
from benchmarks.peers.outcome.results import DISTURBED, OURS, Run, is_peer
from benchmarks.peers.served import Engine, ask_engine
from model_export.errors import ModelExportError

ROOT: Final = Path(__file__).parents[2]
WARM_UP_CONNECTIONS: Final = 8
# Telemetry would disturb the measurements.
UNTRACKED: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The inputs of the measurements.

    Attributes:
        model: The ONNX file that our server serves and the loops run.
        peers_model: The file that the peers serve.
        flags: The flags of our server.
        photos: JPEG files.
        photo_list: A file that lists them.
        concurrency: The loads, in requests in flight.
        seconds: Length of a run.
        warm_up: How long each server and loop is loaded before its first run, in seconds.
        rounds: How often each contender is measured.
        repeats: Maximum repetitions of a run that other programs disturb.
        interpreters: The Python interpreter of each contender, by its name.
        logs: The folder for the servers' logs.
    """

    model: Path
    peers_model: Path
    flags: Sequence[str]
    photos: Sequence[Path]
    photo_list: Path
    concurrency: Sequence[int]
    seconds: float
    warm_up: float
    rounds: int
    repeats: int
    interpreters: Mapping[str, Path]
    logs: Path


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of some rounds.

    Attributes:
        runs: All runs.
        engines: The engines that our server stated, one for each round, by the contender's name.
    """

    runs: list[Run]
    engines: dict[str, list[Engine]]


@contextlib.contextmanager
def serving(contender: Contender, plan: Plan) -> Iterator[RunningServer]:
    """Run a server that answers for as long as the context lasts.

    Raises:
        ModelExportError: It does not start.
    """
    environment = UNTRACKED | {
        "PYTHONPATH": str(ROOT),
        "PEER_MODEL": str(plan.peers_model.resolve()),
        "PEER_WORKERS": str(contender.workers),
        "PEER_THREADS": str(contender.threads),
    }
    server = RunningServer(
        [str(plan.interpreters[contender.name]), *contender.arguments],
        environment,
        folder=ROOT,
        log=plan.logs / f"{contender.name}.log",
    )
    try:
        server.wait_until_it_answers(contender.path, plan.photos[0].read_bytes())
        yield server
    finally:
        server.stop()


def find_boxes(
    contender: Contender, server: RunningServer, photos: Sequence[Path]
) -> dict[str, list[Box]]:
    """The boxes that a running server finds in each photo, by the file's name.

    Raises:
        ModelExportError: The server does not answer properly.
    """
    found = {}
    for photo in photos:
        try:
            status, body = server.post(contender.path, photo.read_bytes())
        except (OSError, http.client.HTTPException) as error:
            raise ModelExportError(f"{contender.name} fails at {photo}: {error!r}") from error
        if status != http.client.OK:
            raise ModelExportError(f"{contender.name} answers {photo} with {status}: {body!r}")
        found[photo.name] = read_answer(body)
    return found


def check_boxes(
    reference: Mapping[str, Sequence[Box]],
    found: Mapping[str, Mapping[str, Sequence[Box]]],
    tolerance: Tolerance = EXACT,
) -> dict[str, Agreement]:
    """How well each contender's boxes agree with the reference, in the reference's photos.

    Raises:
        ModelExportError: A contender finds other boxes; the message has the first differences.
    """
    agreements = {name: compare(reference, found[name], tolerance) for name in found}
    for name, agreement in agreements.items():
        if not agreement.holds:
            first = "\n".join(agreement.differences[:5])
            raise ModelExportError(
                f"{name} finds other boxes than ours does with square letterboxes, "
                f"{len(agreement.differences)} of {agreement.compared}:\n{first}"
            )
    return agreements


def measure(
    contenders: Sequence[Contender], loops: Sequence[Loop], plan: Plan, say: Say
) -> Measured:
    """Do all runs. Each round begins with the next contender.

    Raises:
        ModelExportError: A contender fails.
    """
    load = Load(plan.photo_list, plan.seconds)
    measured = Measured([], {})
    for turn in range(plan.rounds):
        # Another one begins each round, so that no contender always runs first.
        first = turn % max(1, len(contenders))
        for contender in (*contenders[first:], *contenders[:first]):
            with serving(contender, plan) as server:
                if not is_peer(contender.name):
                    measured.engines.setdefault(contender.name, []).append(ask_engine(server))
                _keep(_runs_of(contender, server, plan, load, turn), measured, say)
            if contender.name == OURS:
                # The loops are this server's limit, so they run after it, with the engine it chose.
                engine = measured.engines[OURS][-1]
                _keep(_runs_of_loops(loops, engine, plan, load, turn), measured, say)
    return measured


def _keep(runs: Iterator[Run], measured: Measured, say: Say) -> None:
    for run in runs:
        measured.runs.append(run)
        say(_line(run))


def _runs_of(
    contender: Contender, server: RunningServer, plan: Plan, load: Load, turn: int
) -> Iterator[Run]:
    url = f"http://127.0.0.1:{server.port}{contender.path}"
    run_wrk(url, Load(load.photo_list, plan.warm_up), WARM_UP_CONNECTIONS)
    for connections in plan.concurrency:
        once = partial(
            run_load,
            server,
            contender.path,
            load,
            contender=contender.name,
            turn=turn,
            connections=connections,
        )
        yield quietest(once, plan.repeats)


def _runs_of_loops(
    loops: Sequence[Loop], engine: Engine, plan: Plan, load: Load, turn: int
) -> Iterator[Run]:
    for loop in loops:
        once = partial(
            run_loop, loop, plan.model, plan.flags, engine, load, warm_up=plan.warm_up, turn=turn
        )
        yield quietest(once, plan.repeats)


def quietest(once: Callable[[], Run], repeats: int) -> Run:
    """A run that other programs did not disturb, else the least disturbed of several.

    Args:
        once: Does one run.
        repeats: Maximum number of further runs.
    """
    best = once()
    for _ in range(repeats):
        if best.foreign_share <= DISTURBED:
            break
        best = min(best, once(), key=lambda run: run.foreign_share)
    return best


def _line(run: Run) -> str:
    return (
        f"round {run.round + 1}  {run.contender:18} c={run.connections:<3} {run.rate:7.1f} req/s  "
        f"p50 {run.p50_ms:7.1f}  p99 {run.p99_ms:7.1f} ms  CPU {run.cpu_ms:5.1f} ms/request  "
        f"{run.memory_mib:6.0f} MiB  {run.errors} errors  others {run.foreign_share:.0%}"
    )
