"""The parts that answer requests, all built once, before the first request."""

from dataclasses import dataclass

from service.build import default_options, make_detector
from service.core.suppress import DetectionOptions
from service.engine.base import Engine
from service.http.access.keys import ApiKeys
from service.http.answers import ModelRef
from service.http.bodies.memory import BodyMemory
from service.http.sending import AnswerMemory
from service.observe.gpus import watch_gpus
from service.observe.metrics import Metrics
from service.pipeline.detector import Detector
from service.queue.cpu_sharing import WorkerLoads
from service.settings import MAX_FAILED_PROBES, Settings


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of the server that the routes use.

    Attributes:
        settings: The settings.
        metrics: Where to count.
        detector: From the bytes of images to their boxes.
        defaults: The options of a request that has none.
        model: The model as answers name it.
        engine: The engine that runs it.
        keys: The API keys, one of which some routes require.
        bodies: The memory of all request bodies.
        unread: The memory of all long answers that wait for their clients.
    """

    settings: Settings
    metrics: Metrics
    detector: Detector
    defaults: DetectionOptions
    model: ModelRef
    engine: Engine
    keys: ApiKeys
    bodies: BodyMemory
    unread: AnswerMemory

    def dead_reason(self) -> str | None:
        """Why only a new process would help, or None."""
        failed = self.detector.failed_probes
        limit = self.settings.max_failed_probes or MAX_FAILED_PROBES
        return None if failed < limit else f"the last {failed} probes of the model failed"


def assemble(
    settings: Settings,
    metrics: Metrics,
    engine: Engine,
    loads: WorkerLoads | None,
    keys: ApiKeys,
) -> Running:
    """Everything around a loaded engine; its detector still has to be started.

    Args:
        settings: The settings.
        metrics: Where to count.
        engine: The engine that runs the model.
        loads: The load of every worker, if the server has several.
        keys: The API keys.
    """
    detector = make_detector(settings, engine, metrics, loads)
    contract = engine.contract
    metrics.model_info.labels(contract.name, contract.version, engine.provider).set(1)
    metrics.engine_info.labels(engine.provider, engine.precision, str(engine.threads)).set(1)
    metrics.provider_mismatch.set(engine.provider != engine.wanted_provider)
    if not engine.on_cpu:
        watch_gpus(metrics.registry)
    if not metrics.shared:
        metrics.ready.set_function(lambda: float(detector.unready_reason() is None))
    return Running(
        settings=settings,
        metrics=metrics,
        detector=detector,
        defaults=default_options(settings, contract),
        model=ModelRef(name=contract.name, version=contract.version, provider=engine.provider),
        engine=engine,
        keys=keys,
        bodies=BodyMemory(settings.max_buffered_bytes),
        unread=AnswerMemory(settings.max_buffered_bytes // 4),
    )
