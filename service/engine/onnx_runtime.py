"""ONNX Runtime: which provider is asked for, and the sessions that run on it."""

import importlib.util
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from service.core.contract import InputDtype, InputSpec, ModelContract
from service.engine.base import CPU, CUDA, TENSORRT, see_model_file
from service.engine.contract_check import GraphFacts, read_contract
from service.errors import StartupError

if TYPE_CHECKING:
    # Reading it takes as long as all other imports of a measurement together.
    from service.settings import Device

HALF: Final = "tensor(float16)"
ONNX_DTYPES: Final[dict[str, InputDtype]] = {
    "tensor(uint8)": "uint8",
    HALF: "float16",
    "tensor(float)": "float32",
}
ASKED_PROVIDER: Final = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
# The smallest rectangle of all.
TENSORRT_LEAST_SIDE: Final = 32

Session = Any  # ONNX Runtime has no types
Providers = list[tuple[str, dict[str, str]]]


def import_runtime() -> ModuleType:
    """ONNX Runtime, told to keep what it sees to itself.

    Raises:
        StartupError: It is not installed.
    """
    # From 1.32 on, importing it would otherwise report to its maker.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime  # noqa: PLC0415 - so that its absence is one clear line
    except ImportError as error:
        raise StartupError(
            "ONNX Runtime is not installed: pip install 'yolox-serve[cpu]', or 'yolox-serve[gpu]' "
            f"for an NVIDIA GPU ({error})"
        ) from error
    runtime: ModuleType = onnxruntime
    return runtime


def has_cuda() -> bool:
    """Whether ONNX Runtime is installed, and as a build for NVIDIA GPUs.

    A build for CPUs alone is known by its files. Importing it takes 20 MB, which a server that goes
    on to run OpenVINO would keep.
    """
    found = importlib.util.find_spec("onnxruntime")
    folders = (found and found.submodule_search_locations) or []
    plugins = [
        file for each in folders for file in Path(each).glob("capi/*onnxruntime_providers_*")
    ]
    if all("_shared." in plugin.name for plugin in plugins):
        return False
    return CUDA in import_runtime().get_available_providers()


def choose_providers(
    device: "Device", available: Sequence[str], *, gpu_memory_limit_mb: int | None = None
) -> Providers:
    """The provider that a device stands for, what it may leave work to, and their options.

    Raises:
        StartupError: This runtime lacks the provider of an explicitly asked device.
    """
    # Channels last: YOLOX-s in float16 took 0.73 of its time on an H100, with the same rows
    # to four decimals.
    cuda_options = {"arena_extend_strategy": "kSameAsRequested", "prefer_nhwc": "1"}
    if gpu_memory_limit_mb is not None:
        cuda_options["gpu_mem_limit"] = str(gpu_memory_limit_mb * 2**20)
    options: dict[str, dict[str, str]] = {TENSORRT: {}, CUDA: cuda_options, CPU: {}}
    first = ASKED_PROVIDER.get(device, CUDA if CUDA in available else CPU)
    if first not in available:
        raise StartupError(
            f"device {device!r} was asked for, and this ONNX Runtime has no {first}, only "
            f"{', '.join(available)}; install the extra `gpu`, or choose device `cpu`"
        )
    left_over = {CUDA: (CPU,), TENSORRT: (CUDA, CPU)}.get(first, ())
    return [(name, options[name]) for name in (first, *left_over)]


def share_out(limit_mb: int | None, buckets: Sequence[int], path: Path) -> list[int | None]:
    """Each batch size's part of the GPU memory: the weights, and of the rest by its images.

    Args:
        limit_mb: The GPU memory for all of them, in MiB, or None for no bound.
        buckets: Images of each batch size.
        path: The model; its weights take no more than the file does.

    Raises:
        StartupError: There is no room for the weights.
    """
    if limit_mb is None:
        return [None] * len(buckets)
    weights_mb = math.ceil(path.stat().st_size / 2**20)
    rest_mb = limit_mb - weights_mb * len(buckets)
    if rest_mb <= 0:
        raise StartupError(
            f"gpu_memory_limit_mb {limit_mb} has no room for {len(buckets)} copies of the weights, "
            f"of {weights_mb} MiB each, one for each batch size; a lower max_batch_size has fewer"
        )
    return [weights_mb + rest_mb * bucket // sum(buckets) for bucket in buckets]


def tensorrt_options(
    spec: InputSpec, *, half: bool, max_batch: int, cache: Path | None
) -> dict[str, str]:
    """The shapes and precision that TensorRT builds for, so that no request makes it build anew.

    Args:
        spec: The model's input.
        half: Whether the graph computes in float16.
        max_batch: Most images of one call.
        cache: Folder to keep built engines in.
    """
    options = {"trt_fp16_enable": str(half)}
    if cache is not None:
        options |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(cache),
        }
    if spec.batch is None:
        least = (TENSORRT_LEAST_SIDE,) * 2 if spec.dynamic_size else (spec.height, spec.width)
        most = _shape_of(spec, max_batch, spec.height, spec.width)
        options |= {
            "trt_profile_min_shapes": _shape_of(spec, 1, *least),
            "trt_profile_opt_shapes": most,
            "trt_profile_max_shapes": most,
        }
    return options


def _shape_of(spec: InputSpec, batch: int, height: int, width: int) -> str:
    image = (height, width, 3) if spec.layout == "NHWC" else (3, height, width)
    return f"{spec.name}:{'x'.join(map(str, (batch, *image)))}"


def open_session(runtime: ModuleType, path: Path, providers: Providers, threads: int) -> Session:
    """Load a model.

    Args:
        runtime: ONNX Runtime.
        path: An ONNX file.
        providers: Where to run, as `choose_providers` gives them.
        threads: Threads of one call on the CPU; one means the caller's own.

    Raises:
        StartupError: There is no such file, or it cannot be loaded.
    """
    see_model_file(path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin for work make a call a third faster, and between calls they would only take
    # the CPU from everybody else.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise StartupError(f"{path} cannot be loaded: {error}") from error


def contract_of(session: Session, path: Path) -> ModelContract:
    """The contract of a loaded model, once its graph is seen to agree with it.

    Raises:
        StartupError: There is no contract, or the graph contradicts it.
    """
    outputs = session.get_outputs()
    channels = outputs[0].shape[-1] if outputs[0].shape else None
    facts = GraphFacts(
        [(node.name, ONNX_DTYPES.get(node.type, node.type)) for node in session.get_inputs()],
        [ONNX_DTYPES.get(node.type, node.type) for node in outputs],
        channels if isinstance(channels, int) else None,
    )
    return read_contract(session.get_modelmeta().custom_metadata_map, facts, path)
