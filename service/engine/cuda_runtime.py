"""CUDA's runtime library, as ONNX Runtime has loaded it: what has no setting of its own there."""

import ctypes
from typing import Final

import structlog

CUDA_RUNTIMES: Final = ("libcudart.so.13", "libcudart.so.12")
# `cudaDeviceScheduleBlockingSync`.
BLOCKING_SYNC: Final = 4

log = structlog.get_logger(__name__)


def cuda_runtime() -> ctypes.CDLL | None:
    """The library, or None where there is none."""
    for name in CUDA_RUNTIMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def sleep_while_waiting() -> None:
    """Have this process's threads sleep while the GPU works, instead of asking it time and again.

    By default a thread that waits keeps a CPU busy. In four processes on an H200 an image cost
    7 ms of CPU time: calls of the model took 4 of these, decoding, requests and boxes 3.

    Holds for the current GPU, also when it is in use already.
    """
    runtime = cuda_runtime()
    if runtime is None:
        return
    code = runtime.cudaSetDeviceFlags(ctypes.c_uint(BLOCKING_SYNC))
    if code != 0:
        log.warning("threads that wait for the GPU will keep a CPU busy", cuda_error=code)
