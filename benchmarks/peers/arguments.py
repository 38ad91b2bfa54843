"""The command line of the comparison."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from benchmarks.peers.contenders import one_per_cpu, peers
from model_export.commands.arguments.argument_types import natural, positive
from service.build import DEFAULT_MODEL
from service.cpus import usable_cpus

PEERS: Final = tuple(peer.name for peer in peers(cpus=1))
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
CONCURRENCY: Final = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The parsed command line of a comparison.

    Attributes:
        model: The ONNX file that our server serves.
        peers_model: A file of the same weights for the peers; None to make theirs from `model`.
        photos: A folder of JPEG files.
        truth: COCO annotations of the photos, or None.
        checked: Maximum number of photos in which boxes are compared.
        peers: Names of the peers that take part.
        ours: Our server's flags; None for one process per CPU, and a single process as well.
        concurrency: The loads, in requests in flight.
        seconds: Length of a run.
        warm_up: How long each server and loop is loaded before its first run, in seconds.
        rounds: How often each contender is measured.
        repeats: Maximum repetitions of a run that other programs disturb.
        environments: The folder of the peers' environments.
        output: The folder for the results.
    """

    model: Path
    peers_model: Path | None
    photos: Path
    truth: Path | None
    checked: int
    peers: tuple[str, ...]
    ours: tuple[str, ...] | None
    concurrency: tuple[int, ...]
    seconds: float
    warm_up: float
    rounds: int
    repeats: int
    environments: Path
    output: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """Our server's flags in the comparison."""
        return one_per_cpu(usable_cpus()) if self.ours is None else self.ours


def read_arguments(words: Sequence[str] | None = None) -> Arguments:
    """Parse the words of a command line, by default those of this process."""
    parsed = vars(_parser().parse_args(words))
    # `--peers a,b` and `--peers a b` are the same.
    parsed["peers"] = tuple(dict.fromkeys(chain.from_iterable(parsed["peers"])))
    parsed["concurrency"] = tuple(sorted(set(chain.from_iterable(parsed["concurrency"]))))
    return Arguments(**parsed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description="Compare this server with the servers that people would use instead, with the "
        "same model, photos, machine and boxes.",
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--model",
        type=Path,
        default=DEFAULT_MODEL,
        metavar="FILE",
        help="ONNX file with a contract, of any form (default: the embedded barcode detector)",
    )
    what.add_argument(
        "--peers-model",
        type=Path,
        metavar="FILE",
        help="file that the peers serve instead of a form made from --model: the same weights, "
        "for example adopted with --keep-graph",
    )
    what.add_argument(
        "--photos",
        type=Path,
        default=EXAMPLES,
        metavar="FOLDER",
        help="folder of JPEG files (default: the project's examples)",
    )
    what.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="COCO annotations of the photos; adds the AP of each server's answers",
    )
    what.add_argument(
        "--checked",
        type=positive,
        default=50,
        metavar="N",
        help="number of photos in which all servers must find the same boxes (%(default)s)",
    )
    what.add_argument(
        "--peers",
        type=_names_of_peers,
        nargs="*",
        default=[PEERS],
        metavar="NAME,...",
        help=f"peers that take part (default: {','.join(PEERS)}); `fastapi` stands for two peers",
    )
    what.add_argument(
        "--ours",
        type=lambda text: tuple(shlex.split(text)),
        metavar="FLAGS",
        help="flags of our server, in one word, such as --ours='--device cpu' (default: one "
        "process for each CPU; a single process, with the defaults, is measured as well)",
    )
    _add_run_arguments(parser.add_argument_group("how it is measured"))
    return parser


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--concurrency",
        "--connections",
        type=_counts,
        nargs="+",
        default=[CONCURRENCY],
        metavar="N,...",
        help=f"requests in flight (default: {','.join(map(str, CONCURRENCY))})",
    )
    group.add_argument(
        "--seconds", type=_seconds, default=10, metavar="S", help="length of a run (%(default)s)"
    )
    group.add_argument(
        "--warm-up",
        type=_seconds,
        default=8,
        metavar="S",
        help="load before the first run of each server and loop, during which engines prepare for "
        "the most frequent sizes (%(default)s)",
    )
    group.add_argument(
        "--rounds",
        type=natural,
        default=5,
        metavar="N",
        help="measurements of each server; 0 compares the boxes only (%(default)s)",
    )
    group.add_argument(
        "--repeats",
        type=natural,
        default=2,
        metavar="N",
        help="maximum repetitions of a run that other programs disturb (%(default)s)",
    )
    group.add_argument(
        "--environments",
        type=Path,
        default=Path("runs/peers"),
        metavar="FOLDER",
        help="where the peers are installed (%(default)s)",
    )
    group.add_argument(
        "--output",
        type=Path,
        default=Path("runs/peers/results"),
        metavar="FOLDER",
        help="where the results go (%(default)s)",
    )


def _names_of_peers(text: str) -> tuple[str, ...]:
    """Parse names like `mosec,fastapi`; the name of an environment stands for all peers in it."""
    chosen: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        known = [peer for peer in PEERS if name in (peer, peer.partition("-")[0])]
        if not known:
            raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(PEERS)}")
        chosen += known
    return tuple(dict.fromkeys(chosen))


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(positive(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not N or N,N,...: {error}") from error


def _seconds(text: str) -> float:
    """Parse a duration of at least 1 s, because wrk takes whole seconds."""
    seconds = float(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return seconds
