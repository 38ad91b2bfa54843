"""The GPU's metrics, from a stand-in for NVIDIA's library."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from service.observe.gpus import watch_gpus


class NotSupportedError(Exception):
    """The error that the library raises for a value that a GPU does not have."""


def library(monkeypatch: pytest.MonkeyPatch, *, start_fails: bool = False) -> None:
    """Two GPUs, the second of which cannot tell how busy it is."""

    def start() -> None:
        if start_fails:
            raise NotSupportedError("driver not loaded")

    def utilization(gpu: int) -> SimpleNamespace:
        if gpu == 1:
            raise NotSupportedError
        return SimpleNamespace(gpu=37)

    fake = ModuleType("pynvml")
    vars(fake).update(
        NVMLError=NotSupportedError,
        nvmlInit=start,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda gpu: SimpleNamespace(used=5 + gpu, total=80),
        nvmlDeviceGetUtilizationRates=utilization,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def test_use_and_memory_of_every_gpu_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch)
    registry = CollectorRegistry()
    watch_gpus(registry)
    value = registry.get_sample_value
    assert value("yolox_gpu_utilization_ratio", {"gpu": "0"}) == pytest.approx(0.37)
    assert value("yolox_gpu_memory_used_bytes", {"gpu": "0"}) == 5
    assert value("yolox_gpu_memory_total_bytes", {"gpu": "1"}) == 80
    assert value("yolox_gpu_utilization_ratio", {"gpu": "1"}) is None


@pytest.mark.parametrize("lost", ["nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_gpus_that_are_lost_cost_no_other_metrics(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    def lose(*_: object) -> None:
        raise NotSupportedError("GPU is lost")

    library(monkeypatch)
    registry = CollectorRegistry()
    watch_gpus(registry)
    monkeypatch.setattr(sys.modules["pynvml"], lost, lose)
    assert all(not metric.samples for metric in registry.collect())


@pytest.mark.parametrize("start_fails", [True, False])
def test_without_library_or_driver_there_are_no_metrics_and_no_error(
    monkeypatch: pytest.MonkeyPatch, start_fails: bool
) -> None:
    library(monkeypatch, start_fails=True)
    if not start_fails:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    registry = CollectorRegistry()
    watch_gpus(registry)
    assert list(registry.collect()) == []
