"""The comparison itself: every contender in turn, alone on the machine, round after round."""

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
from benchmarks.peers.limit import Loop, run_loop
from benchmarks.peers.outcome.boxes import Agreement, Box, compare, read_answer
from benchmarks.peers.outcome.results import DISTURBED, Run
from model_export.errors import ModelExportError
from service.core.contract import ModelContract
from service.core.letterbox import LetterboxMode

ROOT: Final = Path(__file__).parents[2]
WARM_UP_S: Final = 2.0
WARM_UP_CONNECTIONS: Final = 8
# A measurement is nobody's usage, and reporting it would be part of it.
UNTRACKED: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure with.

    Attributes:
        model: The ONNX file that ours serves, and the loops run.
        peers_model: The same network as the peers serve it.
        contract: What that promises.
        letterbox: How our server, and so the loops, fit images into the network's input.
        photos: JPEG files.
        photo_list: A file that names them.
        connections: The loads, in requests in flight.
        seconds: Length of a run.
        rounds: How many turns each contender gets.
        repeats: How often a run that others disturb is repeated at most.
        interpreters: Contender to its Python.
        logs: A folder for what the servers say.
    """

    model: Path
    peers_model: Path
    contract: ModelContract
    letterbox: LetterboxMode
    photos: Sequence[Path]
    photo_list: Path
    connections: Sequence[int]
    seconds: float
    rounds: int
    repeats: int
    interpreters: Mapping[str, Path]
    logs: Path


@contextlib.contextmanager
def serving(contender: Contender, plan: Plan) -> Iterator[RunningServer]:
    """A server that answers, for as long as it is needed.

    Raises:
        ModelExportError: It does not start.
    """
    spec = plan.contract.input
    environment = UNTRACKED | {
        "PYTHONPATH": str(ROOT),
        "PEER_MODEL": str(plan.peers_model.resolve()),
        "PEER_HEIGHT": str(spec.height),
        "PEER_WIDTH": str(spec.width),
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


def find_boxes(contender: Contender, plan: Plan) -> dict[str, list[Box]]:
    """What a server finds in each of the photos, by the file's name.

    Raises:
        ModelExportError: It does not start, or does not answer properly.
    """
    found = {}
    with serving(contender, plan) as server:
        for photo in plan.photos:
            try:
                status, body = server.post(contender.path, photo.read_bytes())
            except (OSError, http.client.HTTPException) as error:
                raise ModelExportError(f"{contender.name} fails at {photo}: {error!r}") from error
            if status != http.client.OK:
                raise ModelExportError(f"{contender.name} answers {photo} with {status}: {body!r}")
            found[photo.name] = read_answer(body)
    return found


def check_boxes(
    reference: Mapping[str, Sequence[Box]], found: Mapping[str, Mapping[str, Sequence[Box]]]
) -> dict[str, Agreement]:
    """Each contender's agreement with the reference.

    Raises:
        ModelExportError: One finds something else; the first differences follow.
    """
    agreements = {name: compare(reference, boxes) for name, boxes in found.items()}
    for name, agreement in agreements.items():
        if agreement.differences:
            first = "\n".join(agreement.differences[:5])
            raise ModelExportError(
                f"{name} finds other boxes than ours does with square letterboxes, "
                f"{len(agreement.differences)} of {agreement.compared}:\n{first}"
            )
    return agreements


def measure(
    contenders: Sequence[Contender], loops: Sequence[Loop], plan: Plan, say: Say
) -> list[Run]:
    """All runs; in each round the next contender begins.

    Raises:
        ModelExportError: A contender fails.
    """
    load = Load(plan.photo_list, plan.seconds)
    runs = []
    for turn in range(plan.rounds):
        # Nobody always runs first, or always after the same one.
        first = turn % max(1, len(contenders))
        for loop in loops:
            once = partial(run_loop, loop, plan.model, plan.letterbox, load, turn)
            runs.append(quietest(once, plan.repeats))
            say(_line(runs[-1]))
        for contender in (*contenders[first:], *contenders[:first]):
            for run in _runs_of(contender, plan, load, turn):
                runs.append(run)
                say(_line(run))
    return runs


def _runs_of(contender: Contender, plan: Plan, load: Load, turn: int) -> Iterator[Run]:
    with serving(contender, plan) as server:
        url = f"http://127.0.0.1:{server.port}{contender.path}"
        run_wrk(url, Load(load.photo_list, WARM_UP_S), WARM_UP_CONNECTIONS)
        for connections in plan.connections:
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


def quietest(once: Callable[[], Run], repeats: int) -> Run:
    """A run that others on the machine did not disturb, else the least disturbed of several.

    Args:
        once: Does one run.
        repeats: How many more to try at most.
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
