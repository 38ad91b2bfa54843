"""From settings to a loaded, warmed engine and the defaults it is served with."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from service.capture.capture import Capture, ModelCapture
from service.capture.choice import Chooser
from service.capture.folder import CaptureFolder, FolderLimits
from service.core.contract import ModelContract
from service.core.letterbox import LetterboxMode, likely_sizes, promised_sizes
from service.cpus import cpus_of_process, usable_cpus
from service.engine.base import CUDA, CpuShares, Engine, LoadableEngine
from service.engine.choose import EngineOptions, open_engine
from service.errors import StartupError
from service.heap import give_back_free_heap
from service.imaging.draw import DrawingPool
from service.imaging.memory import ImageMemory
from service.models.defaults import default_options, see_default
from service.models.repository import ModelFile, candidates
from service.models.served import ModelRef, ServedModel, model_label
from service.observe.metrics import Metrics
from service.observe.model_metrics import ModelMetrics
from service.observe.tracing.trace import Tracing
from service.pipeline.batched import BatchedPipeline, NetworkRunner
from service.pipeline.detector import Detector
from service.pipeline.jobs import RunnableModel
from service.pipeline.one_thread import OneThreadPipeline, OneThreadRunner
from service.pipeline.shared import SharedPipeline
from service.pipeline.stages import Stages
from service.queue.batcher import Batcher
from service.queue.capacity import Admission, EngineSlots
from service.queue.cpu_sharing import WorkerLoads
from service.queue.runner import QueuedModel
from service.settings import Settings

# The barcode detector that comes with the package; its card lies beside it.
DEFAULT_MODEL: Final = Path(__file__).with_name("models") / "barcodes.onnx"

SPAN_STEP: Final = 4
GPU_INSTANCES: Final = 2
PROGRESS_S: Final = 5.0

# Workers lock it in turn, to decode what needs more than a worker's part of the memory.
TURNS_FILE: Final = "decoding-turn"

log = structlog.get_logger(__name__)


def load_engine(settings: Settings, path: Path | None = None) -> LoadableEngine:
    """Load a model, and see it run once.

    Args:
        settings: All of them.
        path: The model file (None: the one that the settings name, else the embedded one).

    Raises:
        StartupError: There is no such file, it cannot be served, or not on the device asked for.
    """
    path = path or settings.model or DEFAULT_MODEL
    shares = CpuShares(
        threads_of_engine(settings), cpu_instances(settings), spans_of_engine(settings)
    )
    engine = open_engine(
        EngineOptions(
            path,
            device=settings.device,
            shares=shares,
            letterbox=settings.letterbox,
            max_batch=settings.max_batch_size,
            max_candidates=settings.max_candidates,
            narrow_sizes=settings.engine_sizes,
            choices=settings.engine_cache,
            gpu_memory_limit_mb=settings.gpu_memory_limit_mb,
            tensorrt_cache=settings.tensorrt_cache,
        )
    )
    contract = engine.contract
    if settings.letterbox == "rectangle" and not contract.input.dynamic_size:
        raise StartupError(f"{path} has a fixed size, and cannot do letterbox=rectangle")
    mode = letterbox_mode(settings, engine)
    if (mode, engine.provider) == ("rectangle", CUDA):
        log.warning("CUDA plans all convolutions anew at each change of shape; squares are quicker")
    engine.warm(first_size(contract, mode, on_cpu=engine.on_cpu))
    log.info("model", name=contract.name, version=contract.version, file=str(path))
    return engine


def first_size(contract: ModelContract, mode: LetterboxMode, *, on_cpu: bool) -> tuple[int, int]:
    """The network (height, width) that is run before anything else, to see that the model can.

    On a CPU the smallest tells as much; the probe that makes a server ready runs the whole size. A
    GPU plans at the first call, for each batch width.
    """
    sizes = promised_sizes(contract, mode) if on_cpu else likely_sizes(contract, mode)
    return sizes[0]


async def warm_the_rest(settings: Settings, engine: Engine) -> None:
    """Run the other input sizes once, where that makes later calls quicker."""
    if not isinstance(engine, LoadableEngine):
        return
    sizes = engine.cold_sizes(likely_sizes(engine.contract, letterbox_mode(settings, engine))[1:])
    told = time.monotonic()
    for done, size in enumerate(sizes):
        try:
            await asyncio.to_thread(engine.warm, size)
        except StartupError as error:
            log.warning("an input size cannot be warmed", size=size, cause=str(error))
            return
        if time.monotonic() - told > PROGRESS_S:
            log.info("warming input sizes", done=done + 1, sizes=len(sizes))
            told = time.monotonic()
    if sizes:
        await asyncio.to_thread(give_back_free_heap)
        log.info("input sizes are warm", sizes=len(sizes) + 1)


def threads_of_engine(settings: Settings) -> int:
    """Threads of one running batch: as asked, or the CPUs shared out between the instances."""
    cpus = cpus_of_process(settings.workers)
    return settings.engine_threads or max(1, cpus // (settings.engine_instances or cpus))


def spans_of_engine(settings: Settings) -> list[int]:
    """How many instances' threads a batch may use: from 1 up, in steps of at most four, to all.

    All are those of every process, for one may use what is idle in the others. Each step is a
    session with a copy of the weights; between two steps, CPUs stay idle.
    """
    if settings.engine_threads is not None:
        return [1]
    spans = [max(1, usable_cpus() // threads_of_engine(settings))]
    if settings.models is not None:
        # Each of many models has two copies of its weights at most.
        return sorted({1, *spans})
    while spans[0] > 1:
        spans.insert(0, max(1, spans[0] // SPAN_STEP))
    return spans


def letterbox_mode(settings: Settings, engine: Engine) -> LetterboxMode:
    """As asked; rectangles save a CPU time, and cost a GPU, which runs like shapes together."""
    if settings.letterbox is not None:
        return settings.letterbox
    return "rectangle" if engine.on_cpu and engine.contract.input.dynamic_size else "square"


def engine_instances(settings: Settings, engine: Engine) -> int:
    """Batches run at once: as asked, or one per CPU; on a GPU, one computes and one copies."""
    if engine.on_cpu:
        return cpu_instances(settings)
    return settings.engine_instances or GPU_INSTANCES


def cpu_instances(settings: Settings) -> int:
    """Batches that a CPU runs at once: as asked, or so many that each has its threads."""
    cpus = cpus_of_process(settings.workers)
    return settings.engine_instances or max(1, cpus // threads_of_engine(settings))


def on_one_thread(settings: Settings, engine: Engine) -> bool:
    """Whether each image stays on one thread: where the CPUs run them one by one, a thread each."""
    alone = engine.on_cpu and engine.max_batch == 1
    return alone and settings.decode_threads is None and threads_of_engine(settings) == 1


def make_pipeline(
    settings: Settings,
    engine: Engine,
    metrics: Metrics,
    loads: WorkerLoads | None = None,
    tracing: Tracing | None = None,
) -> SharedPipeline:
    """The queue and the threads that all models share, ready to be started.

    Args:
        settings: All of them.
        engine: That of the first model; the others must run on the same device.
        metrics: Where to count.
        loads: The processes of the server, if it has several.
        tracing: Where batches are noted.
    """
    instances = engine_instances(settings, engine)
    # Processes share CPUs, so there is nothing to borrow where a GPU computes.
    slots = EngineSlots(instances, engine.spans, loads if engine.on_cpu else None)
    admission = Admission(settings.max_queue_images, metrics)
    drawing = DrawingPool(cpus_of_process(settings.workers))
    if on_one_thread(settings, engine):
        runner = OneThreadRunner()
        single = Batcher(runner, metrics, slots=slots, admission=admission, prefetch=instances)
        return SharedPipeline(OneThreadPipeline(single), single, admission, drawing)
    batcher = Batcher(
        NetworkRunner(tracing),
        metrics,
        slots=slots,
        admission=admission,
        max_batch_delay_s=settings.max_batch_delay_ms / 1000,
    )
    threads = settings.decode_threads or cpus_of_process(settings.workers)
    return SharedPipeline(BatchedPipeline(batcher, threads), batcher, admission, drawing)


def first_file(settings: Settings, seen: Mapping[str, Sequence[str]] | None = None) -> ModelFile:
    """The file of the model that is loaded first, and answers requests which name none.

    Args:
        settings: All of them.
        seen: The versions of each model that the other processes of the server have seen.

    Raises:
        StartupError: The repository holds no model, or not the one that is to be the default.
    """
    if settings.models is None or (settings.model is not None and settings.default_model is None):
        return ModelFile(settings.model or DEFAULT_MODEL)
    return candidates(settings.models, settings.default_model, seen or {})[0]


def load_first(
    settings: Settings, seen: Mapping[str, Sequence[str]] | None = None
) -> tuple[ModelFile, LoadableEngine]:
    """Load the default model: of a repository the first version, by traffic, that can be served.

    Raises:
        StartupError: None can; the error is that of the version that should have served.
    """
    file = first_file(settings, seen)
    try:
        engine = load_engine(settings, file.path)
    except StartupError as error:
        for each in _others(settings, file, seen or {}):
            log.error("a model cannot be served", file=str(file.path), cause=str(error))  # noqa: TRY400
            with suppress(StartupError):
                return each, load_engine(settings, each.path)
        raise
    see_default(settings, engine.contract.name)
    return file, engine


def _others(
    settings: Settings, file: ModelFile, seen: Mapping[str, Sequence[str]]
) -> list[ModelFile]:
    """The versions that may serve instead of one, the best first."""
    if file.name is None or settings.models is None:
        return []
    there = candidates(settings.models, file.name, seen)
    return [each for each in there if each.version != file.version]


def image_memory(settings: Settings, metrics: Metrics) -> ImageMemory:
    """The one bound on the memory of pixels, for all models and processes."""
    turns = None if metrics.folder is None else metrics.folder / TURNS_FILE
    return ImageMemory(settings.max_decode_bytes, settings.workers, turns)


def open_capture(settings: Settings, metrics: Metrics) -> Capture | None:
    """The part that keeps images for labelling, if the settings name a folder for them.

    Raises:
        StartupError: The folder cannot be written to.
    """
    if settings.capture is None:
        return None
    limits = FolderLimits(settings.capture_max_mb, settings.capture_max_days)
    folder = CaptureFolder(settings.capture, settings.capture_keep, limits)
    # Each process keeps its part.
    per_hour = settings.capture_per_hour / settings.workers
    return Capture(folder, Chooser(per_hour, settings.capture_share), metrics)


@dataclass(frozen=True, slots=True)
class ModelMaker:
    """Makes a loaded engine a model that answers requests.

    Attributes:
        settings: All of them.
        pipeline: The pipeline of all models.
        memory: Where images take their memory from.
        metrics: Where to count.
        capture: Keeps images for labelling, if that is asked for.
    """

    settings: Settings
    pipeline: SharedPipeline
    memory: ImageMemory
    metrics: Metrics
    capture: Capture | None = None

    def serve(
        self, engine: Engine, name: str | None = None, version: str | None = None
    ) -> ServedModel:
        """All that answers a request for a model.

        Args:
            engine: The loaded engine.
            name: The name that requests use (None: the contract's).
            version: Likewise.
        """
        settings, contract = self.settings, engine.contract
        name, version = name or contract.name, version or contract.version
        mode = letterbox_mode(settings, engine)
        counts = ModelMetrics(self.metrics, name, version)
        counts.describe(engine.provider, engine.precision, engine.threads, engine.max_batch)
        counts.note_mismatch(is_mismatch=engine.provider != engine.wanted_provider)
        stages = Stages(contract, mode, settings.max_image_pixels, self.memory)
        queued = QueuedModel(engine.max_batch, counts)
        model = RunnableModel(engine, stages, queued, frozenset(engine.spans))
        label = model_label(name, version)
        watcher = None if self.capture is None else ModelCapture(self.capture, stages, label)
        return ServedModel(
            name=name,
            version=version,
            engine=engine,
            detector=Detector(model, self.pipeline, counts, watcher),
            class_names=contract.class_names,
            defaults=default_options(settings, contract),
            ref=ModelRef(name=name, version=version, provider=engine.provider),
            label=label,
        )
