"""The metrics of one version of a model, with its labels filled in."""

from prometheus_client import Counter, Histogram

from service.observe.metrics import Metrics

STAGES = ("decode", "queue", "inference", "postprocess")


class LabelledCounters(dict[str, Counter]):
    """The counters of one version of a model by another label; each is there when it is asked for.

    Args:
        family: All counters of this name.
        of_model: The name and the version of the model.
    """

    def __init__(self, family: Counter, of_model: tuple[str, str]) -> None:
        super().__init__()
        self._family = family
        self._of_model = of_model

    def __missing__(self, label: str) -> Counter:
        counter = self[label] = self._family.labels(label, *self._of_model)
        return counter


class ModelMetrics:
    """Counts for one version of a model; looks no label up twice.

    Args:
        metrics: The server's metrics.
        model: The model's name.
        version: Its version.

    Attributes:
        label: Both, as traces name them.
        batch_size: Images in a batch.
        engine_busy: Time in batches.
        images: Images by what became of them: `ok`, or the slug of a problem.
        detections: Boxes by class name.
        stages: The time of an image in each of the `STAGES`.
    """

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._of = (model, version)
        self.label = f"{model}@{version}"
        self.images = LabelledCounters(metrics.images, self._of)
        self.detections = LabelledCounters(metrics.detections, self._of)
        self.batch_size: Histogram = metrics.batch_size.labels(*self._of)
        self.engine_busy: Counter = metrics.engine_busy.labels(*self._of)
        self.stages: dict[str, Histogram] = {
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

    def shadow_image(self, outcome: str) -> None:
        """Count an image that this version was to see as a shadow."""
        self._metrics.shadow_images.labels(outcome, *self._of).inc()

    def shadow_boxes(self, outcome: str, boxes: int) -> None:
        """Count boxes of this version as a shadow, and of the serving one, by how they compare."""
        self._metrics.shadow_boxes.labels(outcome, *self._of).inc(boxes)

    def shadow_duration(self, of: str, seconds: float) -> None:
        """Note the time of a compared image in the serving version or in this one."""
        self._metrics.shadow_duration.labels(of, *self._of).observe(seconds)
