"""A loop over photos without HTTP, or one on each CPU: the limit of our pipeline without a server.

The loop runs the server's own stages and engine, which `service.build` makes from the server's
settings. `--plain` replaces the engine by an ONNX Runtime session with its defaults. The results
are printed as a line of JSON.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.host.processes import pss_mib
from benchmarks.peers.inputs.server_flags import settings_of
from benchmarks.peers.official import CONFIDENCE, IOU
from benchmarks.peers.served import Engine
from service.build import letterbox_mode, load_engine
from service.core.contract import ModelContract
from service.core.input_tensor import pack_images
from service.core.suppress import DetectionOptions
from service.engine.base import CPU, ImageRows, Precision
from service.engine.onnx_runtime import import_runtime
from service.observe.logs import configure_logs
from service.pipeline.stages import ImageSource, ImageTask, Stages, StageSeconds
from service.settings import Device, Settings

# As in official.py, which the peers run.
OPTIONS: Final = DetectionOptions(
    confidence=CONFIDENCE, score_by="joint", nms="hard", iou=IOU, class_agnostic=False
)


@dataclass(frozen=True, slots=True)
class Turns:
    """The results of one process.

    Attributes:
        engine: The engine that it ran.
        latencies_ms: Time of each photo.
        seconds: Duration of the whole loop.
        cpu_s: CPU time of all threads.
        memory_mib: Proportional set size at the end.
    """

    engine: Engine
    latencies_ms: list[float]
    seconds: float
    cpu_s: float
    memory_mib: float


class PlainEngine:
    """An ONNX Runtime session with its defaults, behind the interface of the server's engine.

    Args:
        settings: The server's settings; only the model and `engine_threads` are used.
    """

    on_cpu = True
    provider = wanted_provider = CPU
    precision: Precision = "f32"
    max_batch = 1
    spans = (1,)

    def __init__(self, settings: Settings) -> None:
        runtime = import_runtime()
        options = runtime.SessionOptions()
        self.threads = options.intra_op_num_threads = settings.engine_threads or 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(settings.model), options, providers=[CPU])
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.contract = ModelContract.from_metadata(metadata)

    def infer(
        self,
        images: Sequence[NDArray[np.uint8]],
        span: int = 1,  # noqa: ARG002 - of the protocol
    ) -> NDArray[np.floating]:
        """Run (H, W, 3) uint8 BGR network inputs; gives (N, A, 4 + 1 + C) raw rows."""
        spec = self.contract.input
        batch = np.stack([*images] * (spec.batch or 1))
        rows = self._session.run(None, {spec.name: pack_images(batch, spec)})[0]
        return np.asarray(rows)[: len(images)]


def loop_settings(
    flags: Sequence[str], model: Path, device: Device, threads: int, processes: int
) -> Settings:
    """The server's settings, but for one engine that runs one image at a time on some threads.

    Args:
        flags: The flags of the server.
        model: The model file.
        device: The device of the server's engine.
        threads: Threads of the engine.
        processes: Number of processes with such an engine, each on its share of the CPUs.
    """
    served = settings_of(flags)
    return served.model_copy(
        update={
            "model": model,
            "device": device,
            "workers": processes,
            "engine_instances": 1,
            "engine_threads": threads,
        }
    )


def make_detector(settings: Settings, *, plain: bool) -> tuple[Callable[[bytes], int], Engine]:
    """A function from an image's bytes to the number of its boxes, and the engine in it.

    Raises:
        StartupError: The model cannot be served with these settings.
    """
    engine = PlainEngine(settings) if plain else load_engine(settings)
    mode = letterbox_mode(settings, engine)
    stages = Stages(engine.contract, mode, settings.max_image_pixels)

    def detect(content: bytes) -> int:
        task = ImageTask(ImageSource(content), OPTIONS)
        prepared = stages.prepare(task)
        raw = engine.infer([prepared.tensor])[0]
        return len(stages.postprocess(task, prepared, ImageRows(raw), StageSeconds()).detections)

    return detect, Engine(engine.provider, precision=engine.precision)


def _turn(arguments: argparse.Namespace, ready: Connection) -> None:
    """Run in a process: get ready, wait for the start, loop, and send the `Turns`."""
    configure_logs("console", "error")
    cv2.setNumThreads(arguments.threads)
    settings = loop_settings(
        arguments.flags,
        arguments.model,
        arguments.device,
        arguments.threads,
        arguments.processes,
    )
    detect, engine = make_detector(settings, plain=arguments.plain)
    photos = [Path(line).read_bytes() for line in arguments.photos.read_text().splitlines()]
    _repeat(detect, photos, arguments.warm_up)
    ready.send(None)
    ready.recv()
    cpu_started = time.process_time()
    latencies = _repeat(detect, photos, arguments.seconds)
    cpu_s = time.process_time() - cpu_started
    ready.send(Turns(engine, latencies, sum(latencies) / 1000, cpu_s, pss_mib(os.getpid())))


def _repeat(detect: Callable[[bytes], int], photos: Sequence[bytes], seconds: float) -> list[float]:
    """Process the photos in turn for some seconds; gives the time of each in ms."""
    latencies = []
    started = now = time.perf_counter()
    for photo in cycle(photos):
        if now - started >= seconds:
            break
        detect(photo)
        before, now = now, time.perf_counter()
        latencies.append(1000 * (now - before))
    return latencies


def main() -> None:
    """Run the loops, and print the `Turns` of each process."""
    arguments = _arguments()
    context = multiprocessing.get_context("spawn")
    ends = []
    for _ in range(arguments.processes):
        here, there = context.Pipe()
        context.Process(target=_turn, args=(arguments, there), daemon=True).start()
        # Without this, `recv` would wait forever for a process that died.
        there.close()
        ends.append(here)
    for end in ends:
        end.recv()
    for end in ends:
        end.send(None)
    print(json.dumps([asdict(end.recv()) for end in ends]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="ONNX file with a contract")
    parser.add_argument("--photos", type=Path, required=True, help="a file that lists JPEG files")
    parser.add_argument("--seconds", type=float, default=5, help="duration (%(default)s)")
    parser.add_argument(
        "--warm-up", type=float, default=5, help="duration of the warm-up (%(default)s)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="number of processes (%(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of each engine (%(default)s)"
    )
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="(%(default)s)")
    parser.add_argument(
        "--plain", action="store_true", help="a plain ONNX Runtime session, not our engine"
    )
    parser.add_argument("flags", nargs="*", help="our server's flags, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
