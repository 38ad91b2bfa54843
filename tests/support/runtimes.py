"""Stand-ins for an ONNX Runtime with CUDA, on machines without a GPU."""

from typing import Any

import onnxruntime
import pytest


class SilentlyFallingRuntime:
    """An ONNX Runtime with CUDA on a machine without a GPU: it silently falls back to the CPU."""

    def __init__(self) -> None:
        self._real = onnxruntime
        self.SessionOptions = onnxruntime.SessionOptions
        self.asked: Any = None
        self.tried: list[str] = []
        self.available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.preloaded = False

    def get_available_providers(self) -> list[str]:
        return self.available

    def preload_dlls(self) -> None:
        self.preloaded = True

    def InferenceSession(self, path: str, options: Any, providers: Any) -> Any:  # noqa: N802
        self.asked = providers
        self.tried.append(providers[0][0])
        return self._real.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class PretendingBinding:
    """A binding that leaves on the CPU what is to stay on the GPU."""

    def __init__(self, binding: Any) -> None:
        self.real = binding

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def bind_output(self, name: str, device_type: str = "cpu", *where: Any) -> None:
        assert device_type in ("cpu", "cuda")
        self.real.bind_output(name, "cpu", *where)


class PretendingSession:
    """A session on the CPU that says it runs on CUDA."""

    def __init__(self, session: Any, ran: list[tuple[int, int]], provider: str) -> None:
        self._session = session
        self._ran = ran
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._provider]

    def io_binding(self) -> PretendingBinding:
        return PretendingBinding(self._session.io_binding())

    def run_with_iobinding(self, binding: PretendingBinding) -> None:
        self._session.run_with_iobinding(binding.real)
        self._ran.append((id(self), binding.get_outputs()[0].shape()[0]))


class PretendingRuntime(SilentlyFallingRuntime):
    """An ONNX Runtime that seems to run on a GPU; records the memory limit of each session."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[str | None] = []
        self.ran: list[tuple[int, int]] = []
        self.sessions_with_room = 100

    def InferenceSession(self, path: str, options: Any, providers: Any) -> Any:  # noqa: N802
        self.limits.append(providers[0][1].get("gpu_mem_limit"))
        session = super().InferenceSession(path, options, providers)
        room = len(self.limits) <= self.sessions_with_room
        provider = "CUDAExecutionProvider" if room else "CPUExecutionProvider"
        return PretendingSession(session, self.ran, provider)


def use_runtime(monkeypatch: pytest.MonkeyPatch, runtime: Any) -> None:
    """Make every engine import this instead of ONNX Runtime."""
    for module in ("onnx_cpu", "onnx_gpu", "onnx_runtime"):
        monkeypatch.setattr(f"service.engine.{module}.import_runtime", lambda: runtime)
    has_cuda = "CUDAExecutionProvider" in runtime.get_available_providers()
    monkeypatch.setattr("service.engine.choose.has_cuda", lambda: has_cuda)
