"""OpenVINO's own package: a model file read, compiled for the CPU, and run."""

import importlib
import importlib.util
import re
import sys
from collections import deque
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from service.core.contract import METADATA_KEY, InputDtype, ModelContract
from service.engine.base import Precision, RawRows, see_model_file
from service.engine.contract_check import GraphFacts, read_contract
from service.errors import StartupError

Size = tuple[int, int]

DTYPES: Final[dict[str, InputDtype]] = {"u8": "uint8", "f16": "float16", "f32": "float32"}
CPU_FLAGS: Final = Path("/proc/cpuinfo")
# AMX and AVX-512's extension, AVX's of later desktops, Arm's.
BF16_FLAGS: Final = frozenset({"amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16"})
# A size that is left open.
ANY: Final = -1


def import_openvino() -> ModuleType:
    """OpenVINO's package, kept from reporting to its maker.

    Raises:
        StartupError: It is not installed, or cannot be loaded on this machine.
    """
    if importlib.util.find_spec("openvino") is None:
        raise StartupError(
            "device 'openvino' was asked for, and the package openvino is not installed: "
            "pip install 'yolox-serve[openvino]', or choose device `cpu`"
        )
    # Each import would otherwise send an event; without this package OpenVINO has nothing to send.
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))
    try:
        import openvino  # noqa: PLC0415 - so that its absence is one clear line
    except ImportError as error:
        raise StartupError(
            f"OpenVINO is installed and cannot be loaded ({error}); choose device `cpu`"
        ) from error
    return cast("ModuleType", openvino)


@cache
def open_core() -> Any:  # noqa: ANN401 - untyped
    """OpenVINO's one core of this process, which lives as long as the process does.

    A core gives the thread that first uses it a stack for signal handlers, and frees that stack
    when the core is destroyed, whichever thread does it. The next signal would end the process.

    Raises:
        StartupError: OpenVINO is missing.
    """
    return import_openvino().Core()


def multiplies_in_bf16(capabilities: list[str], cpu_flags: Path = CPU_FLAGS) -> bool:
    """Whether the CPU itself multiplies in bfloat16; OpenVINO also emulates it, which is slow.

    Args:
        capabilities: OpenVINO's list of what the CPU can do.
        cpu_flags: Linux's description of the CPUs; elsewhere OpenVINO's word is taken.
    """
    if "BF16" not in capabilities:
        return False
    with suppress(OSError):
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpu_flags.read_text(), re.MULTILINE)
        return flags is None or not BF16_FLAGS.isdisjoint(flags[1].split())
    return True


class OpenVinoModel:
    """A model file that OpenVINO has read, and can compile for one input size or for all.

    Args:
        path: An ONNX file with a contract.

    Raises:
        StartupError: OpenVINO or the file is missing, or the contract is missing or wrong.
    """

    def __init__(self, path: Path) -> None:
        see_model_file(path)
        self._runtime = import_openvino()
        self._path = path
        try:
            self._core = open_core()
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            self._model = _read(self._core, path)
        except RuntimeError as error:
            raise self._error(error) from error
        self._precision = "bf16" if multiplies_in_bf16(capabilities) else "f32"
        self.contract = _contract_of(self._model, path)

    def compile(self, size: Size | None, *, streams: int, threads: int) -> "CompiledModel":
        """Compile for single inputs of one (height, width) in pixels, or for all sizes and batches.

        Args:
            size: The size; None leaves batch and size open as far as the contract does.
            streams: Calls that run side by side.
            threads: CPU threads of each call.

        Raises:
            StartupError: OpenVINO cannot compile it.
        """
        spec, model = self.contract.input, self._model.clone()
        usual = (ANY, ANY) if spec.dynamic_size else (spec.height, spec.width)
        height, width = size or usual
        batch = spec.batch or (ANY if size is None else 1)
        image = (height, width, 3) if spec.layout == "NHWC" else (3, height, width)
        properties = {
            "NUM_STREAMS": str(streams),
            "INFERENCE_NUM_THREADS": str(streams * threads),
            "INFERENCE_PRECISION_HINT": self._precision,
            # Pinned threads of two servers, or of two models, would share a CPU and idle another.
            "ENABLE_CPU_PINNING": "NO",
        }
        try:
            model.reshape({spec.name: self._runtime.PartialShape([batch, *image])})
            compiled = self._core.compile_model(model, "CPU", properties)
        except RuntimeError as error:
            raise self._error(error) from error
        return CompiledModel(self._runtime, compiled)

    def _error(self, error: RuntimeError) -> StartupError:
        return StartupError(f"{self._path} cannot be loaded by OpenVINO: {error}")


class CompiledModel:
    """A compiled model; several threads may run it at once."""

    def __init__(self, runtime: ModuleType, compiled: Any) -> None:  # noqa: ANN401 - untyped
        self._runtime = runtime
        self._compiled = compiled
        self._dtype = np.dtype(DTYPES[compiled.outputs[0].element_type.to_string()])
        self._idle: deque[Any] = deque()

    @property
    def precision(self) -> Precision:
        """The number format that OpenVINO says it multiplies in."""
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        return cast("Precision", hint.to_string())

    @property
    def threads(self) -> int:
        """CPU threads of all streams together, as OpenVINO says."""
        return int(self._compiled.get_property("INFERENCE_NUM_THREADS"))

    def run(self, tensor: NDArray[np.generic], shape: tuple[int, ...]) -> RawRows:
        """Run the graph's one input; gives rows of this shape, in memory of their own.

        Raises:
            RuntimeError: OpenVINO cannot run it, or the output has another shape.
        """
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        raw = np.empty(shape, self._dtype)
        request.set_input_tensor(self._runtime.Tensor(tensor, shared_memory=True))
        request.set_output_tensor(self._runtime.Tensor(raw, shared_memory=True))
        request.infer(share_outputs=True)
        self._idle.append(request)
        return raw

    def run_unbound(self, tensor: NDArray[np.generic]) -> RawRows:
        """The same with rows of whatever shape the graph gives them.

        Raises:
            RuntimeError: OpenVINO cannot run it.
        """
        request = self._compiled.create_infer_request()
        request.set_input_tensor(self._runtime.Tensor(tensor, shared_memory=True))
        request.infer(share_outputs=True)
        return np.array(request.get_output_tensor().data)


def _read(core: Any, path: Path) -> Any:  # noqa: ANN401 - untyped
    """Read a model, and compute what is constant in it once.

    Weights that a file keeps in float16 are widened here. All compiled models share the result;
    each would otherwise widen them for itself, into memory of its own.

    Raises:
        RuntimeError: OpenVINO cannot read the file.
    """
    model = core.read_model(str(path))
    passes = importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
    return model


def _contract_of(model: Any, path: Path) -> ModelContract:  # noqa: ANN401 - untyped
    """The contract of a model that was read, once its graph is seen to agree with it."""
    # Where OpenVINO keeps an ONNX file's metadata properties.
    where = ["framework", METADATA_KEY]
    found = {METADATA_KEY: model.get_rt_info(where).astype(str)} if model.has_rt_info(where) else {}
    channels = model.outputs[0].partial_shape[-1] if model.outputs[0].partial_shape.rank else None
    facts = GraphFacts(
        [(node.any_name, _dtype(node)) for node in model.inputs],
        [_dtype(node) for node in model.outputs],
        channels.get_length() if channels is not None and channels.is_static else None,
    )
    return read_contract(found, facts, path)


def _dtype(node: Any) -> str:  # noqa: ANN401 - untyped
    name: str = node.element_type.to_string()
    return DTYPES.get(name, name)
