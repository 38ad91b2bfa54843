"""The loops over photos without HTTP, and how each is measured in processes of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers.host.load import Load
from benchmarks.peers.host.machine import cpu_times, foreign_share
from benchmarks.peers.limit import Turns
from benchmarks.peers.outcome.results import ALL_CPUS, ONE_THREAD, PLAIN, WIDE, Run
from benchmarks.peers.served import Engine
from model_export.errors import ModelExportError


@dataclass(frozen=True, slots=True)
class Loop:
    """How a loop runs.

    Attributes:
        name: Its name in the results.
        title: Its name in the table.
        processes: Number of processes that run the loop at the same time.
        threads: Threads of the engine in each.
        plain: Whether a plain ONNX Runtime session replaces the engine.
    """

    name: str
    title: str
    processes: int
    threads: int
    plain: bool = False


def loops(cpus: int) -> tuple[Loop, ...]:
    """The loops for a machine with a number of CPUs."""
    return (
        Loop(ONE_THREAD, "loop, 1 thread", 1, 1),
        Loop(WIDE, f"loop, engine of {cpus} threads", 1, cpus),
        Loop(ALL_CPUS, f"loops, {cpus} processes", cpus, 1),
        Loop(PLAIN, f"loops on plain ONNX Runtime, {cpus} processes", cpus, 1, plain=True),
    )


def run_loop(
    loop: Loop,
    model: Path,
    flags: Sequence[str],
    engine: Engine,
    load: Load,
    *,
    warm_up: float,
    turn: int,
) -> Run:
    """Measure a loop in processes of its own.

    Args:
        loop: The loop.
        model: The model file that our server serves.
        flags: The flags of our server.
        engine: The engine that the server states in `GET /model`.
        load: The photos and the duration.
        warm_up: How long it runs before the measurement, in seconds.
        turn: Number of the round, from 0.

    Raises:
        ModelExportError: The loop fails, or runs another engine than the server.
    """
    command = [sys.executable, "-m", "benchmarks.peers.limit", "--model", str(model)]
    command += ["--photos", str(load.photo_list), "--seconds", str(load.seconds)]
    command += ["--warm-up", str(warm_up)]
    command += ["--processes", str(loop.processes), "--threads", str(loop.threads)]
    command += ["--device", engine.device, *(["--plain"] if loop.plain else []), "--", *flags]
    before = cpu_times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ModelExportError(f"the {loop.title} failed: {done.stderr.strip()[-2000:]}")
    turns = [
        Turns(**(entry | {"engine": Engine(**entry["engine"])}))
        for entry in json.loads(done.stdout.splitlines()[-1])
    ]
    for each in turns:
        if not loop.plain and each.engine.differs_from(engine):
            raise ModelExportError(f"the {loop.title} ran {each.engine}, and the server {engine}")
    # Its processes are our children, and have ended.
    return _as_run(loop, turns, turn, foreign_share(before, cpu_times(), 0.0))


def _as_run(loop: Loop, turns: list[Turns], turn: int, foreign: float) -> Run:
    latencies = np.concatenate([each.latencies_ms for each in turns])
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99]).tolist()
    return Run(
        contender=loop.name,
        round=turn,
        connections=loop.processes,
        requests=len(latencies),
        seconds=max(each.seconds for each in turns),
        errors=0,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        cpu_ms=1000 * sum(each.cpu_s for each in turns) / len(latencies),
        memory_mib=sum(each.memory_mib for each in turns),
        foreign_share=foreign,
    )
