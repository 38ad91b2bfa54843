"""From settings to a loaded, warmed engine and the defaults it is served with."""

import dataclasses
from pathlib import Path
from typing import Final

import structlog

from service.core.contract import ModelContract
from service.core.suppress import DetectionOptions, with_recommended
from service.cpus import cpus_of_process
from service.detector import promised_sizes
from service.engine import CPU, Engine, OnnxEngine
from service.errors import StartupError
from service.settings import Settings

# The barcode detector that comes with the package; its card lies beside it.
DEFAULT_MODEL: Final = Path(__file__).with_name("models") / "barcodes.onnx"
OPTION_SETTINGS: Final = ("confidence", "score_by", "nms", "iou", "sigma", "class_agnostic")

log = structlog.get_logger(__name__)


def load_engine(settings: Settings) -> OnnxEngine:
    """Load the model that the settings name, else the embedded one; warm every size it promises.

    Raises:
        StartupError: There is no such file, it cannot be served, or not on the device asked for.
    """
    path = settings.model or DEFAULT_MODEL
    engine = OnnxEngine(
        path,
        device=settings.device,
        threads=threads_of_engine(settings),
        max_batch=settings.max_batch_size,
        gpu_memory_limit_mb=settings.gpu_memory_limit_mb,
    )
    engine.load()
    contract = engine.contract
    if settings.letterbox == "rectangle" and not contract.input.dynamic_size:
        raise StartupError(f"{path} has a fixed size, and cannot do letterbox=rectangle")
    engine.warm(promised_sizes(contract, settings.letterbox))
    log.info("model", name=contract.name, version=contract.version, file=str(path))
    return engine


def threads_of_engine(settings: Settings) -> int:
    """Threads of one running batch: as asked, or the CPUs shared out between the instances."""
    cpus = cpus_of_process(settings.workers)
    return settings.engine_threads or max(1, cpus // (settings.engine_instances or cpus))


def engine_instances(settings: Settings, engine: Engine) -> int:
    """Batches run at once: as asked, or one per CPU, and one that batches anywhere else."""
    if settings.engine_instances is not None:
        return settings.engine_instances
    if engine.provider != CPU:
        return 1
    return max(1, cpus_of_process(settings.workers) // threads_of_engine(settings))


def default_options(settings: Settings, contract: ModelContract) -> DetectionOptions:
    """What a request without options gets: settings, else the model's advice, else the article."""
    article = DetectionOptions(
        max_candidates=settings.max_candidates, max_detections=settings.max_detections
    )
    advised = with_recommended(article, contract.recommended)
    chosen = {name: getattr(settings, name) for name in OPTION_SETTINGS}
    return dataclasses.replace(
        advised, **{name: value for name, value in chosen.items() if value is not None}
    )
