"""Which engine runs the model: the one that was asked for, else a GPU, else the CPU's quickest."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

import service
from service.core.letterbox import LetterboxMode
from service.core.model_digest import model_digest
from service.engine.base import CPU, CUDA, ONE_THREAD, CpuShares, LoadableEngine, see_model_file
from service.engine.measure import Measured
from service.engine.onnx_cpu import OnnxCpuEngine
from service.engine.onnx_gpu import MAX_CANDIDATES, FellToCpuError, OnnxGpuEngine
from service.engine.onnx_runtime import has_cuda
from service.engine.openvino.engine import OpenVinoEngine
from service.settings import Device

# OpenVINO costs more memory; a gain below this, or within the noise, is not worth it.
LEAST_GAIN: Final = 1.05
# In a score; bfloat16 moved none by more than 0.06 in the models that were tried.
SCORE_TOLERANCE: Final = 0.1
# In a box's corner, as a share of the box's longer side.
BOX_TOLERANCE: Final = 0.1
MEASURING_LIMIT_S: Final = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The settings of an engine.

    Attributes:
        path: An ONNX file with a contract.
        device: Where to run.
        shares: How calls share the CPUs.
        letterbox: How images are fitted (None: as the engine likes it).
        max_batch: Most images of one call (None: the engine's own choice).
        max_candidates: How many rows of an image are copied from a GPU, unless more are needed.
        narrow_sizes: Most input sizes that OpenVINO compiles for themselves.
        choices: Folder that keeps which engine was quicker (None: measured at every start).
        gpu_memory_limit_mb: Bound of the GPU arenas in MiB.
        tensorrt_cache: Folder where TensorRT keeps the engines it builds.
    """

    path: Path
    device: Device = "auto"
    shares: CpuShares = ONE_THREAD
    letterbox: LetterboxMode | None = None
    max_batch: int | None = None
    max_candidates: int = MAX_CANDIDATES
    narrow_sizes: int = 0
    choices: Path | None = None
    gpu_memory_limit_mb: int | None = None
    tensorrt_cache: Path | None = None


def open_engine(options: EngineOptions) -> LoadableEngine:
    """Load the model on the device that the options name, and say where it runs.

    Raises:
        StartupError: The runtime or the file is missing, the contract is missing or wrong, or the
            device is not to be had.
    """
    see_model_file(options.path)
    match options.device:
        case "auto":
            engine = _on_gpu_if_it_starts(options)
        case "openvino":
            engine = _openvino(options)
            engine.load()
        case "cpu":
            engine = _onnx_cpu(options)
            engine.load()
        case "cuda" | "tensorrt":
            engine = _onnx_gpu(options)
            engine.load()
    log.info(
        "engine",
        asked=options.device,
        provider=engine.provider,
        precision=engine.precision,
        threads=engine.threads,
    )
    return engine


def _onnx_cpu(options: EngineOptions, wanted_provider: str = CPU) -> OnnxCpuEngine:
    return OnnxCpuEngine(
        options.path,
        shares=options.shares,
        max_batch=options.max_batch,
        wanted_provider=wanted_provider,
    )


def _openvino(options: EngineOptions) -> OpenVinoEngine:
    return OpenVinoEngine(
        options.path,
        shares=options.shares,
        max_batch=options.max_batch,
        narrow_sizes=options.narrow_sizes,
    )


def _onnx_gpu(options: EngineOptions) -> OnnxGpuEngine:
    return OnnxGpuEngine(
        options.path,
        "tensorrt" if options.device == "tensorrt" else "cuda",
        max_batch=options.max_batch,
        max_candidates=options.max_candidates,
        gpu_memory_limit_mb=options.gpu_memory_limit_mb,
        tensorrt_cache=options.tensorrt_cache,
    )


def _on_gpu_if_it_starts(options: EngineOptions) -> LoadableEngine:
    """Never a silent fall to the CPU: the log says it, and `wanted_provider` stays the GPU's."""
    if not has_cuda():
        return _quickest_on_cpu(options)
    gpu = _onnx_gpu(options)
    try:
        gpu.load()
    except FellToCpuError as error:
        log.warning("the GPU did not start, and the model runs on the CPU", cause=str(error))
        engine = _onnx_cpu(options, CUDA)
        engine.load()
        return engine
    return gpu


def _quickest_on_cpu(options: EngineOptions) -> LoadableEngine:
    engine: LoadableEngine = _openvino(options) if _takes_openvino(options) else _onnx_cpu(options)
    engine.load()
    return engine


def _takes_openvino(options: EngineOptions) -> bool:
    if not _is_installed("openvino"):
        return False
    if not _is_installed("onnxruntime"):
        return True
    found = _measured(options)
    return found is not None and openvino_is_better(found)


def openvino_is_better(found: Measured) -> bool:
    """Whether OpenVINO is clearly quicker, and finds the same; the log says the figures."""
    gain = found.onnxruntime_ms / found.openvino_ms
    agrees = found.score_difference <= SCORE_TOLERANCE and found.box_difference <= BOX_TOLERANCE
    better = agrees and gain >= LEAST_GAIN
    log.info("engines measured", taken="OpenVINO" if better else "ONNX Runtime", **asdict(found))
    if gain >= LEAST_GAIN and not agrees:
        log.warning("OpenVINO is quicker and finds something else; ONNX Runtime runs the model")
    return better


def _measured(options: EngineOptions) -> Measured | None:
    """Both engines' figures, kept from an earlier start or new; None where that failed."""
    kept = options.choices / f"engine-{_key(options)}.json" if options.choices else None
    if kept is not None:
        with suppress(OSError, ValueError, TypeError):
            return Measured(**json.loads(kept.read_text()))
    text = _measure(options)
    if text is None:
        return None
    if kept is not None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text)
        except OSError as error:
            log.warning(
                "the choice of engine cannot be kept", folder=str(kept.parent), error=str(error)
            )
    return Measured(**json.loads(text))


def _measure(options: EngineOptions) -> str | None:
    """Run the measurement as a process of its own; gives what it printed, None where it failed."""
    command = [sys.executable, "-P", "-m", "service.engine.measure", str(options.path.absolute())]
    command += ["--threads", str(options.shares.threads)]
    if options.letterbox is not None:
        command += ["--letterbox", options.letterbox]
    paths = [str(Path(service.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(  # noqa: S603 - this package's own module
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MEASURING_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
        log.warning("engines could not be measured, ONNX Runtime runs the model", cause=told)
        return None
    return done.stdout.strip()


def _key(options: EngineOptions) -> str:
    """The choice holds for one model, CPU, number of threads, way of fitting, and versions."""
    digest = hashlib.sha256(model_digest(options.path).encode())
    runtimes = [importlib.metadata.version(name) for name in ("onnxruntime", "openvino")]
    versions = [service.__version__, *runtimes]
    facts = [cpu_model(), str(options.shares.threads), str(options.letterbox), *versions]
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:24]


def cpu_model(description: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name and what it can do, as far as the system tells."""
    with suppress(OSError):
        lines = re.findall(
            r"^(?:model name|flags|CPU part|Features)\s*:.*$", description.read_text(), re.MULTILINE
        )
        return " ".join(dict.fromkeys(lines))
    return platform.processor() or platform.machine()


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
