"""Throughput of a model on a GPU, and how much of it the engine and the server reach.

    python benchmarks/gpu.py --model MODEL.onnx [--photo photo.jpg] [--batch 32]
        [--server-batch 8] [--workers 1 2 4] [--connections 64 256] [--seconds 6] [--device cuda]

One run prints, in images a second:

session.run      arrays in, arrays out, one batch after the other: the reference for the server
device only      the batch and its rows stay on the device: the rate of the network itself
CUDA graph       the same, recorded once and replayed
engine           the call by which the server runs a batch, from one thread and from two
server           raw JPEG bodies over HTTP, for each number of worker processes and connections

All but the last run on random pixels. `--device cpu` leaves out `device only` and `CUDA graph`.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

import httpx2 as httpx
import numpy as np
from numpy.typing import NDArray
from overload import EXAMPLE, SENDER, Answers, read_answers, serving
from prometheus_client.parser import text_string_to_metric_families

from service.core.input_tensor import pack_images
from service.engine.base import ChoosingEngine, Engine
from service.engine.choose import EngineOptions, open_engine
from service.engine.onnx_runtime import Session, choose_providers, import_runtime, open_session
from service.settings import Device

GOAL: Final = 0.9
LEAST_CALLS: Final = 3
WORKERS_TIMEOUT_S: Final = 180
CONNECTIONS_A_SENDER: Final = 32

Batch = NDArray[np.uint8]


def main() -> None:
    """Measure, and print a line for each measurement."""
    arguments = _arguments()
    options = EngineOptions(arguments.model, arguments.device, max_batch=arguments.batch)
    engine = open_engine(options)
    spec = engine.contract.input
    print(f"{engine.contract.name} on {engine.provider}, {spec.height}x{spec.width}", flush=True)
    rng = np.random.default_rng(0)
    limit = 0.0
    for count in sorted({1, min(8, arguments.batch), arguments.batch}):
        shape = (count, spec.height, spec.width, 3)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        limit = _measure_calls(engine, images, arguments)
    del engine
    for workers in arguments.workers:
        _measure_server(arguments, workers, limit)


def _measure_calls(engine: Engine, images: Batch, arguments: argparse.Namespace) -> float:
    """Print the rate of each way to call the model; gives that of `session.run`, in images/s."""
    runtime = import_runtime()
    session = open_session(
        runtime,
        arguments.model,
        choose_providers(arguments.device, runtime.get_available_providers()),
        0,
    )
    name, packed = session.get_inputs()[0].name, pack_images(images, engine.contract.input)
    count = len(images)

    def report(what: str, rate: float) -> float:
        took_ms = 1000 * count / rate
        print(f"batch {count:3}  {what:22} {rate:8.0f} images/s  {took_ms:7.2f} ms", flush=True)
        return rate

    limit = report("session.run", _rate(lambda: session.run(None, {name: packed}), count))
    if arguments.device != "cpu":
        bound = _on_device(runtime, session, packed)
        report("device only", _rate(bound, count))
    if arguments.device == "cuda":
        graph = {"enable_cuda_graph": "1"}
        providers = choose_providers(arguments.device, runtime.get_available_providers())
        providers[0] = (providers[0][0], providers[0][1] | graph)
        recorded = open_session(runtime, arguments.model, providers[:1], 0)
        report("CUDA graph", _rate(_on_device(runtime, recorded, packed), count))
    for threads in (1, 2):
        rate = _rate(lambda: engine.infer([*images]), count, threads)
        report(f"engine, {threads} at once", rate)
    if isinstance(engine, ChoosingEngine):
        # Every row of these images falls short of it, as nearly all do in a photo.
        thresholds = [float("inf")] * count
        for threads in (1, 2):
            rate = _rate(lambda: engine.infer_candidates([*images], thresholds), count, threads)
            report(f"best rows, {threads} at once", rate)
    return limit


def _on_device(
    runtime: ModuleType, session: Session, packed: NDArray[np.generic]
) -> Callable[[], object]:
    """A call whose input lies on the device and whose output stays there."""
    binding = session.io_binding()
    value = runtime.OrtValue.ortvalue_from_numpy(packed, "cuda", 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, "cuda", 0)
    return lambda: (session.run_with_iobinding(binding), value)


def _rate(call: Callable[[], object], count: int, threads: int = 1, seconds: float = 1.5) -> float:
    """Images a second of a call on `count` images that a number of threads repeat."""
    for _ in range(LEAST_CALLS):
        call()
    calls, ends = [0] * threads, time.monotonic() + seconds

    def repeat(number: int) -> None:
        while time.monotonic() < ends or calls[number] < LEAST_CALLS:
            call()
            calls[number] += 1

    began = time.monotonic()
    running = [threading.Thread(target=repeat, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return count * sum(calls) / (time.monotonic() - began)


def _measure_server(arguments: argparse.Namespace, workers: int, limit: float) -> None:
    """Print the server's images a second, and their ratio to `limit`."""
    batch = arguments.server_batch or arguments.batch
    flags = ["--device", arguments.device, "--max-batch-size", str(batch)]
    flags += ["--workers", str(workers), "--max-queue-images", "2048", *arguments.flags]
    began = time.monotonic()
    with serving(arguments.model, flags) as (_, url):
        while workers > 1 and (there := _counts(url)["yolox_workers"]) < workers:
            if time.monotonic() > began + WORKERS_TIMEOUT_S:
                raise SystemExit(f"error: only {there:.0f} of {workers} workers came up")
            time.sleep(0.5)
        print(f"server, {workers} workers: ready after {time.monotonic() - began:.1f} s")
        before = _counts(url)
        for connections in arguments.connections:
            answers = _load(url, arguments.photo, arguments.seconds, connections)
            rate, other = answers.useful_per_s, sum(answers.statuses.values())
            other -= answers.statuses[200]
            after = _counts(url)
            spent = {name: after[name] - before.get(name, 0.0) for name in after}
            before = after
            p50, p99 = np.percentile(answers.latencies_s, (50, 99)) * 1000
            print(
                f"  c={connections:<4} {rate:8.0f} images/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  "
                f"{rate / limit:.2f} of session.run (goal {GOAL})  others {other}\n"
                f"         {_use(spent)}",
                flush=True,
            )


def _counts(url: str) -> dict[str, float]:
    """The sums and totals in the server's metrics, and the number of its processes."""
    text = httpx.get(url.replace("/detect", "/metrics")).text
    counts = dict[str, float]()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(("_sum", "_count", "_total", "_workers")):
                name = sample.name + sample.labels.get("stage", "")
                counts[name] = counts.get(name, 0.0) + sample.value
    return counts


def _use(spent: dict[str, float]) -> str:
    """CPU time of an image, mean batch size, and mean time in each stage."""
    images = spent["yolox_batch_size_sum"]
    parts = [
        f"{stage} {1000 * spent[f'yolox_stage_duration_seconds_sum{stage}'] / images:.1f}"
        for stage in ("decode", "queue", "inference", "postprocess")
    ]
    return (
        f"{1000 * spent['process_cpu_seconds_total'] / images:.2f} CPU ms an image, "
        f"{images / spent['yolox_batch_size_count']:.1f} images a batch, ms in {', '.join(parts)}"
    )


def _load(url: str, photo: Path, seconds: int, connections: int) -> Answers:
    """Send closed loops, from enough senders that the server never waits for one."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    senders = -(-connections // CONNECTIONS_A_SENDER)
    each = [connections // senders] * senders
    command = [sys.executable, str(SENDER), host, port, str(photo), str(seconds)]
    running = [
        subprocess.Popen([*command, str(part), "0"], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for part in each
    ]
    outputs = [process.communicate()[0] for process in running]
    rows = [line for output in outputs for line in output.splitlines()[1:]]
    table = "\n".join([outputs[0].splitlines()[0], *rows])
    return read_answers(table, seconds, 0.0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    devices: list[Device] = ["cpu", "cuda", "tensorrt"]
    parser.add_argument("--model", type=Path, required=True, help="ONNX file with a contract")
    parser.add_argument("--photo", type=Path, default=EXAMPLE, help="JPEG to send")
    parser.add_argument("--device", choices=devices, default="cuda")
    parser.add_argument("--batch", type=int, default=32, help="maximum images of a batch")
    parser.add_argument("--server-batch", type=int, help="maximum of the server (that of --batch)")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--seconds", type=int, default=6, help="length of each load")
    parser.add_argument("--flags", nargs="*", default=[], help="more flags of the server")
    return parser.parse_args()


if __name__ == "__main__":
    main()
