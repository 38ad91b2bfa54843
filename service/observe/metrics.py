"""The server's Prometheus metrics, in a registry of their own."""

from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector

from service.observe.container import ContainerCollector
from service.observe.loaded_models import LoadedModels
from service.observe.process_group import ProcessGroupCollector

M = TypeVar("M", bound=MetricWrapperBase)

# Fine enough for a millisecond, wide enough for the longest deadline.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0),
)
BATCH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)

# How the gauges of several live processes become one. Queues add up. One process that is not ready,
# or runs on another provider than the device setting aims at, is enough for the server's value.
# Labels of every metric that is about a model.
OF_MODEL: Final = ("model", "version")
Combined = Literal["livesum", "livemin", "livemax"]


class Metrics:
    """All metrics of the server; every label takes its values from a bounded set.

    Args:
        folder: Where the workers of one server keep their values, so that each worker can report
            the values of all. By default this process is alone and keeps its values in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.shared = folder is not None
        self.registry = CollectorRegistry()
        # Shared values are read back from the folder, never from this process's own metrics.
        self._own = self.registry if folder is None else None
        self._define_requests()
        self._define_engine()
        self._define_models()
        self._define_server()
        PlatformCollector(registry=self.registry)
        self.registry.register(ContainerCollector())
        if folder is None:
            ProcessCollector(registry=self.registry)
        else:
            values = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
            self.registry.register(LoadedModels(values))
            self.registry.register(ProcessGroupCollector(folder))

    def _define_requests(self) -> None:
        self.requests = self._counter(
            "yolox_requests", "Requests answered.", ("endpoint", "status")
        )
        self.request_duration = self._histogram(
            "yolox_request_duration_seconds", "Time to answer a request.", SECONDS, ("endpoint",)
        )
        self.requests_in_flight = self._gauge(
            "yolox_requests_in_flight", "Requests with images that are being answered.", "livesum"
        )
        self.stage_duration = self._histogram(
            "yolox_stage_duration_seconds",
            "Time an image spends in a stage.",
            SECONDS,
            ("stage", *OF_MODEL),
        )
        self.images = self._counter("yolox_images", "Images, by outcome.", ("outcome", *OF_MODEL))
        self.detections = self._counter(
            "yolox_detections", "Boxes returned.", ("class_name", *OF_MODEL)
        )
        self.rejections = self._counter(
            "yolox_rejections",
            "Requests refused, and images refused or dropped individually, by reason.",
            ("reason",),
        )

    def _define_engine(self) -> None:
        self.queue_images = self._gauge(
            "yolox_queue_images", "Images accepted whose batch has not started.", "livesum"
        )
        self.queue_capacity = self._gauge(
            "yolox_queue_capacity_images", "Places in the queue.", "livesum"
        )
        self.batch_size = self._histogram(
            "yolox_batch_size", "Images in a batch.", BATCH_SIZES, OF_MODEL
        )
        self.batch_capacity = self._gauge(
            "yolox_batch_capacity_images", "Maximum images in a batch.", "livemax", OF_MODEL
        )
        self.engine_busy = self._counter(
            "yolox_engine_busy_seconds", "Time that engine instances spent in batches.", OF_MODEL
        )
        self.engine_instances = self._gauge(
            "yolox_engine_instances", "Batches that can run at once.", "livesum"
        )
        self.model_info = self._gauge(
            "yolox_model_info",
            "A model that is loaded, and the provider it really runs on.",
            "livemax",
            (*OF_MODEL, "provider"),
        )
        self.engine_info = self._gauge(
            "yolox_engine_info",
            "The engine that runs the model, its number format, and the CPU threads of a call.",
            "livemax",
            (*OF_MODEL, "provider", "precision", "threads"),
        )
        self.provider_mismatch = self._gauge(
            "yolox_provider_mismatch",
            "1 if the model runs on another provider than the device setting aims at, else 0.",
            "livemax",
            OF_MODEL,
        )

    def _define_models(self) -> None:
        self.captured = self._counter(
            "yolox_captured_images",
            "Images kept for labelling, by reason, and those that were to be kept and were not.",
            ("reason",),
        )
        self.model_loads = self._counter(
            "yolox_model_loads", "Loads of a model, by outcome.", ("outcome", *OF_MODEL)
        )
        self.shadow_images = self._counter(
            "yolox_shadow_images",
            "Images that a shadow version was to see, by outcome.",
            ("outcome", *OF_MODEL),
        )
        self.shadow_boxes = self._counter(
            "yolox_shadow_boxes",
            "Boxes of a shadow version and of the serving one, by how they compare.",
            ("outcome", *OF_MODEL),
        )
        self.shadow_duration = self._histogram(
            "yolox_shadow_duration_seconds",
            "Time of a compared image without waiting, in the serving version and in the shadow.",
            SECONDS,
            ("of", *OF_MODEL),
        )

    def forget_model(self, model: str, version: str) -> None:
        """Drop every series of a version that is no longer loaded.

        Processes that share their metrics say so, and no process tells the series then.
        """
        for metric in self._of_models():
            if self.shared and isinstance(metric, Gauge):
                _zero(metric, model, version)
            elif not self.shared:
                metric.remove_by_labels({"model": model, "version": version})
            metric.labels.cache_clear()  # type: ignore[attr-defined]

    def _of_models(self) -> list[MetricWrapperBase]:
        metrics = [each for each in vars(self).values() if isinstance(each, MetricWrapperBase)]
        return [each for each in metrics if set(OF_MODEL) <= set(each._labelnames)]  # noqa: SLF001

    def _define_server(self) -> None:
        self.connections = self._gauge("yolox_connections", "Open connections.", "livesum")
        self.connections_dropped = self._counter(
            "yolox_connections_dropped",
            "Connections ended because their client was too slow, or one too many, by reason.",
            ("reason",),
        )
        self.ready = self._gauge(
            "yolox_ready", "1 while every process takes new work, else 0.", "livemin"
        )
        self.workers = self._gauge("yolox_workers", "Processes that serve.", "livesum")
        self.workers_wanted = self._gauge(
            "yolox_workers_wanted", "Processes that should serve: the setting.", "livemax"
        )
        self.worker_starts = self._counter(
            "yolox_worker_starts", "Processes that began to serve, replacements included.", ()
        )

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return _quick(Counter(name, help_text, labels, registry=self._own))

    def _gauge(
        self, name: str, help_text: str, combined: Combined, labels: tuple[str, ...] = ()
    ) -> Gauge:
        return _quick(
            Gauge(name, help_text, labels, registry=self._own, multiprocess_mode=combined)
        )

    def _histogram(
        self, name: str, help_text: str, buckets: tuple[float, ...], labels: tuple[str, ...]
    ) -> Histogram:
        return _quick(Histogram(name, help_text, labels, buckets=buckets, registry=self._own))


def _quick(metric: M) -> M:
    """Cache the labelled children: they are few and permanent, and every request looks them up."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric


def _zero(gauge: Gauge, model: str, version: str) -> None:
    """Set every series of a version to 0: a file of values that processes share only grows."""
    for family in gauge.collect():
        for sample in family.samples:
            if (sample.labels["model"], sample.labels["version"]) == (model, version):
                gauge.labels(**sample.labels).set(0)
