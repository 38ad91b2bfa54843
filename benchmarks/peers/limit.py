"""What the pipeline of our server does without a server: a loop, or one on each CPU.

Run as a program, it measures one such loop and prints what came of it as a line of JSON, so that
the process which compares stays small.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from benchmarks.peers.host.load import Load
from benchmarks.peers.host.machine import cpu_times, foreign_share
from benchmarks.peers.host.processes import pss_mib
from benchmarks.peers.official import CONFIDENCE, IOU
from benchmarks.peers.outcome.results import ALL_CPUS, ONE_THREAD, WIDE, Run
from model_export.errors import ModelExportError
from service.core.letterbox import LetterboxMode, fit_to_model
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.engine.onnx_engine import CpuShares, OnnxEngine
from service.imaging.read import read_image
from service.observe.logs import configure_logs

OPTIONS: Final = DetectionOptions(
    confidence=CONFIDENCE, score_by="joint", nms="hard", iou=IOU, class_agnostic=False
)
MOST_PIXELS: Final = 50_000_000
WARM_UP: Final = 10


@dataclass(frozen=True, slots=True)
class Loop:
    """How to turn.

    Attributes:
        name: Its name in the results.
        title: Its name in the table.
        processes: How many turn side by side.
        threads: ONNX Runtime's, of each.
    """

    name: str
    title: str
    processes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Turns:
    """What one process did.

    Attributes:
        latencies_ms: Of each photo.
        seconds: How long it turned.
        cpu_s: CPU time of it, all threads together.
        memory_mib: Proportional set size at its end.
    """

    latencies_ms: list[float]
    seconds: float
    cpu_s: float
    memory_mib: float


def loops(cpus: int) -> tuple[Loop, ...]:
    """The limits of a machine of so many CPUs."""
    return (
        Loop(ONE_THREAD, "loop, 1 thread", 1, 1),
        Loop(WIDE, f"loop, session of {cpus} threads", 1, cpus),
        Loop(ALL_CPUS, f"loops, {cpus} processes", cpus, 1),
    )


def run_loop(loop: Loop, model: Path, mode: LetterboxMode, load: Load, turn: int) -> Run:
    """Measure a loop in processes of its own.

    Raises:
        ModelExportError: It fails.
    """
    command = [sys.executable, "-m", "benchmarks.peers.limit", "--model", str(model)]
    command += ["--photos", str(load.photo_list), "--seconds", str(load.seconds)]
    command += ["--processes", str(loop.processes), "--threads", str(loop.threads)]
    command += ["--letterbox", mode]
    before = cpu_times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise ModelExportError(f"the {loop.title} failed: {done.stderr.strip()[-2000:]}")
    turns = [Turns(**entry) for entry in json.loads(done.stdout)]
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


def _detector(model: Path, threads: int, mode: LetterboxMode) -> Callable[[bytes], int]:
    """From the bytes of a photo to how many objects it has, by the parts of the service."""
    engine = OnnxEngine(model, device="cpu", shares=CpuShares(threads))
    engine.load()
    contract = engine.contract
    spec = contract.input

    def detect(content: bytes) -> int:
        photo = read_image(content, MOST_PIXELS, fit=(spec.height, spec.width))
        size = photo.height, photo.width
        canvas, way_back = fit_to_model(photo.pixels, contract, mode, size)
        raw = engine.infer(canvas[np.newaxis])[0]
        return len(find_objects(raw, way_back, contract, OPTIONS))

    return detect


def _turn(arguments: argparse.Namespace, ready: Connection) -> None:
    """One process: get ready, wait for the word, turn, and tell."""
    configure_logs("console", "warning")
    cv2.setNumThreads(arguments.threads)
    detect = _detector(arguments.model, arguments.threads, arguments.letterbox)
    photos = [Path(line).read_bytes() for line in arguments.photos.read_text().splitlines()]
    for photo in photos[:WARM_UP]:
        detect(photo)
    ready.send(None)
    ready.recv()
    latencies = []
    cpu_started, started = time.process_time(), time.perf_counter()
    now = started
    for photo in cycle(photos):
        if now - started >= arguments.seconds:
            break
        detect(photo)
        before, now = now, time.perf_counter()
        latencies.append(1000 * (now - before))
    cpu_s = time.process_time() - cpu_started
    ready.send(Turns(latencies, now - started, cpu_s, pss_mib(os.getpid())))


def main() -> None:
    """Turn, and print the `Turns` of each process."""
    arguments = _arguments()
    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(arguments.processes):
        here, there = context.Pipe()
        context.Process(target=_turn, args=(arguments, there), daemon=True).start()
        # Else a process that dies would be waited for.
        there.close()
        ends.append(here)
    for end in ends:
        end.recv()
    for end in ends:
        end.send(None)
    print(json.dumps([asdict(end.recv()) for end in ends]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True, help="a list of files")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--letterbox", choices=("square", "rectangle"), default="square")
    return parser.parse_args()


if __name__ == "__main__":
    main()
