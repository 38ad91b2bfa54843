"""The servers that are compared, and their settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.peers.official import CONFIDENCE, IOU
from benchmarks.peers.outcome.results import ALONE, OURS

SERVERS: Final = "benchmarks.peers.servers"
# Makes our server postprocess as official.py does.
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
        environment: Name of its requirement file; None for the environment of this process.
        arguments: Arguments of the interpreter, in which `{port}` stands for the port.
        path: URL path to which images are sent, with its query.
        workers: Number of workers.
        threads: ONNX Runtime's threads in each worker.
        settings: A description of its settings, for people to read.
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
    """The flags that give our server one process for each CPU, as most peers have."""
    return "--workers", str(cpus)


def alone(model: str) -> Contender:
    """This project's server with its defaults: one process."""
    return replace(ours(model, ()), name=ALONE, title="ours, one process")


def ours(model: str, flags: Sequence[str]) -> Contender:
    """This project's server with some flags."""
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
    """The other servers, set up for a number of CPUs as their documentation recommends."""
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
    """A peer, whose environment is the first part of its name; `shape` is (workers, threads)."""
    workers, threads = shape
    environment = name.partition("-")[0]
    return Contender(name, title, environment, arguments, "/detect", workers, threads, settings)
