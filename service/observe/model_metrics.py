"""The metrics of one version of a model, with its labels filled in."""

from prometheus_client import Counter, Histogram

from service.observe.metrics import Metrics

STAGES = ("decode", "queue", "inference", "postprocess")


class ModelMetrics:
    """Counts for one version of a model; looks no label up twice.

    Args:
        metrics: The server's metrics.
        model: The model's name.
        version: Its version.

    Attributes:
        label: Both, as traces name them.
    """

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._of = (model, version)
        self.label = f"{model}@{version}"
        self._images: dict[str, Counter] = {}
        self._detections: dict[str, Counter] = {}
        self.batch_size: Histogram = metrics.batch_size.labels(*self._of)
        self.engine_busy: Counter = metrics.engine_busy.labels(*self._of)
        self._stages: dict[str, Histogram] = {
            stage: metrics.stage_duration.labels(stage, *self._of) for stage in STAGES
        }

    def describe(self, provider: str, precision: str, threads: int, max_batch: int) -> None:
        """Say what runs the model, and how."""
        self._metrics.model_info.labels(*self._of, provider).set(1)
        self._metrics.engine_info.labels(*self._of, provider, precision, str(threads)).set(1)
        self._metrics.batch_capacity.labels(*self._of).set(max_batch)

    def note_mismatch(self, *, is_mismatch: bool) -> None:
        """Say whether the model runs on another provider than the device setting aims at."""
        self._metrics.provider_mismatch.labels(*self._of).set(is_mismatch)

    def observe_stage(
        self, stage: str, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """Note how long an image spent in one of the stages, with the trace to look at."""
        self._stages[stage].observe(seconds, exemplar)

    def count_image(self, outcome: str) -> None:
        """Count an image by what became of it: `ok`, or the slug of a problem."""
        counter = self._images.get(outcome)
        if counter is None:
            counter = self._images[outcome] = self._metrics.images.labels(outcome, *self._of)
        counter.inc()

    def count_detections(self, class_name: str, boxes: int) -> None:
        """Count boxes of a class."""
        counter = self._detections.get(class_name)
        if counter is None:
            counter = self._metrics.detections.labels(class_name, *self._of)
            self._detections[class_name] = counter
        counter.inc(boxes)

    def shadow_image(self, outcome: str) -> None:
        """Count an image that this version was to see as a shadow."""
        self._metrics.shadow_images.labels(outcome, *self._of).inc()

    def shadow_boxes(self, outcome: str, boxes: int) -> None:
        """Count boxes of this version as a shadow, and of the serving one, by how they compare."""
        self._metrics.shadow_boxes.labels(outcome, *self._of).inc(boxes)

    def shadow_duration(self, of: str, seconds: float) -> None:
        """Note the time of a compared image in the serving version or in this one."""
        self._metrics.shadow_duration.labels(of, *self._of).observe(seconds)
