"""The providers that ONNX Runtime is asked for."""

from typing import Any

import pytest

from service.engine.base import CPU, CUDA, TENSORRT
from service.engine.onnx_runtime import choose_providers


@pytest.mark.parametrize("device", ["auto", "cuda", "tensorrt"])
@pytest.mark.parametrize("limit_mb", [None, 512])
def test_gpu_memory_grows_by_what_is_asked_for(device: Any, limit_mb: int | None) -> None:
    """By default it would double each time."""
    providers = dict(choose_providers(device, [TENSORRT, CUDA, CPU], gpu_memory_limit_mb=limit_mb))
    assert providers[CUDA]["arena_extend_strategy"] == "kSameAsRequested"


def test_cuda_is_asked_to_compute_channels_last() -> None:
    ((name, options), _) = choose_providers("cuda", [CUDA, CPU])
    assert (name, options["prefer_nhwc"]) == (CUDA, "1")
