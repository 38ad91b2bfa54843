"""Metrics of the machine's NVIDIA GPUs, where NVIDIA's management library (NVML) works."""

from collections.abc import Iterable
from contextlib import suppress
from types import ModuleType
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LABELS: Final = ("gpu",)

log = structlog.get_logger(__name__)


def watch_gpus(registry: CollectorRegistry) -> None:
    """Add the GPUs' metrics to a registry; without library or driver, log it and add none."""
    try:
        import pynvml  # noqa: PLC0415 - comes with the extra `gpu` alone

        pynvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - the server works without these metrics
        log.warning("no metrics of the GPU", reason=str(error))
        return
    registry.register(GpuCollector(pynvml))


class GpuCollector(Collector):
    """Asks the driver at every scrape. Values are of whole GPUs, other programs' use included.

    Args:
        library: NVIDIA's `pynvml`, initialised.
    """

    def __init__(self, library: ModuleType) -> None:
        self._library = library

    def collect(self) -> Iterable[Metric]:
        """Give utilization and memory of every GPU that this process can see, by its index."""
        use = GaugeMetricFamily(
            "yolox_gpu_utilization_ratio", "Part of the time that the GPU was busy.", labels=LABELS
        )
        used = GaugeMetricFamily(
            "yolox_gpu_memory_used_bytes", "Memory of the GPU in use.", labels=LABELS
        )
        total = GaugeMetricFamily(
            "yolox_gpu_memory_total_bytes", "Memory of the GPU.", labels=LABELS
        )
        ask = self._library
        count = 0
        with suppress(ask.NVMLError):
            count = ask.nvmlDeviceGetCount()
        for index in range(count):
            label = [str(index)]
            # A slice of a GPU has no utilization of its own, and a lost GPU has no values at all.
            # The other metrics must be served all the same.
            with suppress(ask.NVMLError):
                gpu = ask.nvmlDeviceGetHandleByIndex(index)
                memory = ask.nvmlDeviceGetMemoryInfo(gpu)
                used.add_metric(label, memory.used)
                total.add_metric(label, memory.total)
                use.add_metric(label, ask.nvmlDeviceGetUtilizationRates(gpu).gpu / 100)
        return [use, used, total]
