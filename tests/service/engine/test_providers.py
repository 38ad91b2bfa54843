"""The providers that ONNX Runtime is asked for."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.engine import onnx_runtime
from service.engine.base import CPU, CUDA, TENSORRT
from service.engine.onnx_runtime import choose_providers, has_cuda


@pytest.mark.parametrize("device", ["auto", "cuda", "tensorrt"])
@pytest.mark.parametrize("limit_mb", [None, 512])
def test_gpu_memory_grows_by_what_is_asked_for(device: Any, limit_mb: int | None) -> None:
    """By default it would double each time."""
    providers = dict(choose_providers(device, [TENSORRT, CUDA, CPU], gpu_memory_limit_mb=limit_mb))
    assert providers[CUDA]["arena_extend_strategy"] == "kSameAsRequested"


def test_cuda_is_asked_to_compute_channels_last() -> None:
    ((name, options), _) = choose_providers("cuda", [CUDA, CPU])
    assert (name, options["prefer_nhwc"]) == (CUDA, "1")


@pytest.mark.parametrize(
    ("files", "available", "expected"),
    [
        ([], [CUDA], False),
        (["libonnxruntime_providers_shared.so"], [CUDA], False),
        (["onnxruntime_providers_shared.dll"], [CUDA], False),
        (["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"], [CUDA], True),
        (["onnxruntime_providers_shared.dll", "onnxruntime_providers_cuda.dll"], [CUDA], True),
        (["libonnxruntime_providers_shared.so", "libonnxruntime_providers_rocm.so"], [CPU], False),
    ],
)
def test_only_a_build_with_more_than_the_cpu_is_imported_to_ask_for_cuda(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    available: list[str],
    expected: bool,
) -> None:
    (tmp_path / "capi").mkdir()
    for name in files:
        (tmp_path / "capi" / name).touch()
    installed = ModuleSpec("onnxruntime", None, is_package=True)
    installed.submodule_search_locations = [str(tmp_path)]
    runtime = SimpleNamespace(get_available_providers=lambda: available)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: installed)
    monkeypatch.setattr(onnx_runtime, "import_runtime", lambda: runtime)
    assert has_cuda() is expected


def test_without_onnx_runtime_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert not has_cuda()
