"""The parts that answer requests, all built once, before the first request."""

from dataclasses import dataclass
from functools import partial

from service import __version__
from service.build import (
    ModelMaker,
    image_memory,
    load_engine,
    make_pipeline,
    open_capture,
    warm_the_rest,
)
from service.capture.capture import Capture
from service.engine.base import Engine
from service.http.access.keys import ApiKeys
from service.http.bounds import AnswerMemory, BodyMemory
from service.models.changing import Models
from service.models.following import Following
from service.models.repository import ModelFile
from service.models.shared_state import StateFile
from service.models.stock import Stock
from service.observe.gpus import watch_gpus
from service.observe.metrics import Metrics
from service.observe.tracing.choose import open_tracing
from service.observe.tracing.trace import Tracing
from service.pipeline.health import Health
from service.pipeline.shared import SharedPipeline
from service.queue.cpu_sharing import WorkerLoads
from service.settings import MAX_FAILED_PROBES, Settings


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of the server that the routes use.

    Attributes:
        settings: The settings.
        metrics: Where to count.
        models: The models by name and version.
        pipeline: The queue and the threads that all models share.
        health: Whether the server should get new work.
        following: Has the models follow their files.
        keys: The API keys, one of which some routes require.
        bodies: The memory of all request bodies.
        unread: The memory of all long answers that wait for their clients.
        tracing: Finds the trace of each request.
        capture: Keeps images for labelling, if that is asked for.
    """

    settings: Settings
    metrics: Metrics
    models: Models
    pipeline: SharedPipeline
    health: Health
    following: Following
    keys: ApiKeys
    bodies: BodyMemory
    unread: AnswerMemory
    tracing: Tracing
    capture: Capture | None

    def dead_reason(self) -> str | None:
        """Why only a new process would help, or None."""
        failed = self.health.failed_probes
        limit = self.settings.max_failed_probes or MAX_FAILED_PROBES
        return None if failed < limit else f"the last {failed} probes of the model failed"

    async def start(self) -> None:
        """Start all threads, and try one inference before anyone can call the server ready."""
        self.pipeline.start()
        if self.capture is not None:
            self.capture.start()
        await self.health.start()
        self.models.warm_default()
        self.following.start()

    async def stop(self) -> None:
        """Finish accepted work, then end every task and thread."""
        self.health.stop()
        await self.following.stop()
        await self.models.stop()
        if self.capture is not None:
            await self.capture.stop()
        await self.pipeline.stop()


def assemble(
    settings: Settings,
    metrics: Metrics,
    engine: Engine,
    loads: WorkerLoads | None,
    keys: ApiKeys,
    file: ModelFile | None = None,
) -> Running:
    """Everything around a loaded engine; it still has to be started.

    Args:
        settings: The settings.
        metrics: Where to count.
        engine: The engine that runs the default model.
        loads: The load of every worker, if the server has several.
        keys: The API keys.
        file: The default model's file; None for an engine that has none.
    """
    tracing = open_tracing(__version__, spans=settings.tracing)
    pipeline = make_pipeline(settings, engine, metrics, loads, tracing)
    capture = open_capture(settings, metrics)
    maker = ModelMaker(settings, pipeline, image_memory(settings, metrics), metrics, capture)
    stock = Stock(
        partial(load_engine, settings),
        maker.serve,
        pipeline,
        metrics,
        partial(warm_the_rest, settings),
        settings.max_loaded_models,
    )
    first = maker.serve(engine, *((file.name, file.version) if file else ()))
    stock.admit_first(first, file)
    shared = None if metrics.folder is None else StateFile(metrics.folder)
    models = Models(stock, first, settings.models if file else None, shared)
    health = Health(pipeline, lambda: models.default.detector, settings.ready_window_s)
    following = Following(models, settings.model_poll_s, is_shared=shared is not None)
    if not engine.on_cpu:
        watch_gpus(metrics.registry)
    if not metrics.shared:
        metrics.ready.set_function(lambda: float(health.unready_reason() is None))
    return Running(
        settings=settings,
        metrics=metrics,
        models=models,
        pipeline=pipeline,
        health=health,
        following=following,
        keys=keys,
        bodies=BodyMemory(settings.max_buffered_bytes),
        unread=AnswerMemory(settings.max_buffered_bytes // 4),
        tracing=tracing,
        capture=capture,
    )
