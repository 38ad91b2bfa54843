"""Fake engines as models that the pipelines run, alone and with the server around them."""

from service.build import ModelMaker, image_memory, make_pipeline
from service.engine.base import Engine
from service.models.served import ServedModel
from service.observe.metrics import Metrics
from service.observe.model_metrics import ModelMetrics
from service.pipeline.health import Health
from service.pipeline.jobs import RunnableModel
from service.pipeline.stages import Stages
from service.queue.runner import QueuedModel
from service.settings import Settings

MAX_PIXELS = 1_000_000


def runnable(engine: Engine, metrics: Metrics | None = None) -> RunnableModel:
    """A model as the pipelines run it, with square letterboxes."""
    counts = ModelMetrics(metrics or Metrics(), engine.contract.name, engine.contract.version)
    queued = QueuedModel(engine.max_batch, counts)
    return RunnableModel(
        engine, Stages(engine.contract, "square", MAX_PIXELS), queued, frozenset(engine.spans)
    )


class OneModel:
    """A server's parts below HTTP, with one model."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics | None = None) -> None:
        metrics = metrics or Metrics()
        self.pipeline = make_pipeline(settings, engine, metrics)
        maker = ModelMaker(settings, self.pipeline, image_memory(settings, metrics), metrics)
        self.served: ServedModel = maker.serve(engine)
        self.detector = self.served.detector
        self.health = Health(self.pipeline, lambda: self.detector, settings.ready_window_s)

    @property
    def queued(self) -> QueuedModel:
        """The model as the queue sees it."""
        return self.detector.model.queued

    async def start(self) -> None:
        self.pipeline.start()
        await self.health.start()

    async def stop(self) -> None:
        self.health.stop()
        await self.pipeline.stop()
