"""The Prometheus metrics, on a registry of their own."""

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

# Fine enough for a millisecond, wide enough for the longest deadline.
SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0),
)
BATCH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)


class Metrics:
    """What an operator can see; every label takes its values from a bounded set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter(
            "yolox_requests", "Requests answered.", ("endpoint", "status")
        )
        self.request_duration = self._histogram(
            "yolox_request_duration_seconds", "Time to answer a request.", SECONDS, ("endpoint",)
        )
        self.stage_duration = self._histogram(
            "yolox_stage_duration_seconds", "Time an image spends in a stage.", SECONDS, ("stage",)
        )
        self.batch_size = self._histogram("yolox_batch_size", "Images in a batch.", BATCH_SIZES, ())
        self.queue_images = Gauge(
            "yolox_queue_images",
            "Images accepted whose batch has not started.",
            registry=self.registry,
        )
        self.images = self._counter("yolox_images", "Images, by what became of them.", ("outcome",))
        self.detections = self._counter("yolox_detections", "Boxes returned.", ("class_name",))
        self.rejections = self._counter(
            "yolox_rejections",
            "Requests refused, and images dropped from the queue, by reason.",
            ("reason",),
        )
        self.model_info = Gauge(
            "yolox_model_info",
            "The model that is served, and the provider it really runs on.",
            ("name", "version", "provider"),
            registry=self.registry,
        )
        self.ready = Gauge(
            "yolox_ready", "1 while the server takes new work, else 0.", registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(
        self, name: str, help_text: str, buckets: tuple[float, ...], labels: tuple[str, ...]
    ) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self.registry)
