"""OpenVINO's execution provider: a plugin, which ONNX Runtime loads where it is asked for."""

import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from service.errors import StartupError

OPENVINO: Final = "OpenVINOExecutionProvider"


def add_openvino(runtime: ModuleType) -> None:
    """Make the plugin's provider one of the runtime's.

    Raises:
        StartupError: It is not installed, or this runtime cannot load it.
    """
    if OPENVINO in runtime.get_available_providers():
        return
    try:
        import onnxruntime_ep_openvino  # noqa: PLC0415 - only who asks for it needs it
    except ImportError as error:
        raise StartupError(
            "device 'openvino' was asked for, and its provider is not installed: "
            f"pip install 'yolox-serve[openvino]' ({error})"
        ) from error
    try:
        library = onnxruntime_ep_openvino.get_library_path()
        runtime.register_execution_provider_library(OPENVINO, library)
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise StartupError(f"{OPENVINO} cannot be loaded: {error}") from error


def openvino_options(*, calls: int, threads: int) -> dict[str, str]:
    """The provider's options; the arithmetic is its own choice: bfloat16 where CPUs multiply in it.

    Args:
        calls: How many may be under way at once.
        threads: Of each call.
    """
    # Pinned threads of two servers, or of two models of one, would share a CPU and leave another.
    properties = {
        "NUM_STREAMS": str(calls),
        "INFERENCE_NUM_THREADS": str(calls * threads),
        "ENABLE_CPU_PINNING": "NO",
    }
    return {"load_config": json.dumps({"CPU": properties})}


def openvino_cpu(runtime: ModuleType) -> Sequence[Any]:
    """The CPU, as a session is told to use it by OpenVINO.

    Raises:
        StartupError: OpenVINO finds none that it knows.
    """
    for device in runtime.get_ep_devices():
        if device.ep_name == OPENVINO and device.ep_metadata.get("ov_device") == "CPU":
            return [device]
    raise StartupError(f"device 'openvino' was asked for, and {OPENVINO} knows no CPU here")
