"""Which servers are compared, and with which settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.peers.official import CONFIDENCE, IOU
from benchmarks.peers.outcome.results import ALONE, OURS

SERVERS: Final = "benchmarks.peers.servers"
# What official.py does, asked of ours.
QUERY: Final = f"confidence={CONFIDENCE}&score_by=joint&nms=hard&iou={IOU}&class_agnostic=false"

UVICORN: Final = (
    *("-m", "uvicorn", f"{SERVERS}.fastapi_server:app", "--port", "{port}"),
    *("--no-access-log", "--log-level", "warning"),
)
LITSERVE: Final = ("-m", f"{SERVERS}.litserve_server")
BENTOML: Final = (
    *("-m", "bentoml", "serve", f"{SERVERS}.bentoml_server:Detector"),
    *("--port", "{port}", "--host", "127.0.0.1"),
)
MOSEC: Final = (
    *("-m", f"{SERVERS}.mosec_server"),
    *("--port", "{port}", "--address", "127.0.0.1", "--log-level", "warning"),
)
RAY: Final = ("-m", f"{SERVERS}.ray_server")


@dataclass(frozen=True, slots=True)
class Contender:
    """A server to measure.

    Attributes:
        name: Its name at the command line and in the results.
        title: Its name in the table.
        environment: Whose requirements it needs; None is the environment of this process.
        arguments: What follows the interpreter; `{port}` stands for the port.
        path: Where it takes images, options included.
        workers: How many it is told to have.
        threads: ONNX Runtime's, of each worker.
        settings: How it is set up and why, for people to read.
    """

    name: str
    title: str
    environment: str | None
    arguments: tuple[str, ...]
    path: str
    workers: int
    threads: int
    settings: str

    def renamed(self, name: str) -> "Contender":
        """The same under another name."""
        return replace(self, name=name)


def one_per_cpu(cpus: int) -> tuple[str, str]:
    """The flags by which ours has a process for each CPU, as most peers do."""
    return "--workers", str(cpus)


def alone(model: str) -> Contender:
    """This project's server with its defaults, which are one process."""
    return replace(ours(model, ()), name=ALONE, title="ours, one process")


def ours(model: str, flags: Sequence[str]) -> Contender:
    """This project's server, with its defaults but for the flags."""
    return Contender(
        name=OURS,
        title="ours",
        environment=None,
        arguments=(
            *("-m", "service", "--model", model, "--port", "{port}", "--log-level", "warning"),
            *flags,
        ),
        path=f"/detect?{QUERY}",
        workers=1,
        threads=1,
        settings=f"defaults{', ' + ' '.join(flags) if flags else ''}; `POST /detect?{QUERY}`",
    )


def peers(cpus: int) -> tuple[Contender, ...]:
    """The others, each as its documentation has it for a machine of so many CPUs."""
    each = f"{cpus} workers (one for each CPU) of one ONNX Runtime thread"
    wide = f"one process, a `def` endpoint on its thread pool, one session of {cpus} threads"
    polling = f"{each}, batches of up to 8 of what is waiting, `fast_queue`"
    replicas = f"{cpus} replicas of one CPU and one ONNX Runtime thread, batches of up to 8"
    return (
        _peer("fastapi-threads", "FastAPI, threads", UVICORN, (1, cpus), wide),
        _peer(
            "fastapi-processes",
            "FastAPI, processes",
            (*UVICORN, *one_per_cpu(cpus)),
            (cpus, 1),
            each,
        ),
        _peer("litserve", "LitServe", LITSERVE, (cpus, 1), polling),
        _peer("bentoml", "BentoML", BENTOML, (cpus, 1), each),
        _peer("mosec", "mosec", MOSEC, (cpus, 1), f"{each}, one stage"),
        _peer("ray", "Ray Serve", RAY, (cpus, 1), replicas),
    )


def _peer(
    name: str, title: str, arguments: tuple[str, ...], shape: tuple[int, int], settings: str
) -> Contender:
    """A peer in the environment that its name begins with; its shape is workers and threads."""
    workers, threads = shape
    environment = name.partition("-")[0]
    return Contender(name, title, environment, arguments, "/detect", workers, threads, settings)
