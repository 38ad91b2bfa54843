"""The command line of detection in a data set: `deploy/ray/detect_dataset.py`."""

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from cyclopts import Group, Parameter
from pyarrow.fs import FileSystem

from service.build import load_first
from service.command.sources import WrongSettingError, read_settings
from service.console import WRONG_USAGE, print_error
from service.cpus import usable_cpus
from service.errors import ServiceError, StartupError
from service.observe.logs import configure_logs
from service.settings import Device, Settings
from yolox_serve.cluster.dataset.coco_file import write_coco
from yolox_serve.cluster.dataset.job import DatasetJob, begin, carry_out, spare_cpus
from yolox_serve.cluster.dataset.results import summarise
from yolox_serve.detect.arguments import FindingChoice, options_of
from yolox_serve.detect.sources import SourceError

FAILED: Final = 1
# Ray's object store only holds names and boxes here. Its default is a third of the memory.
OBJECT_STORE_BYTES: Final = 200 * 2**20
# By default Ray's workers give way to every other process.
NICENESS: Final = "RAY_worker_niceness"

WORK: Final = Group("The work of a process", sort_key=1)
FORM: Final = Group("Input and output", sort_key=2)


@dataclass(frozen=True)
class WorkChoice:
    """The processes that hold the model."""

    model: Annotated[
        Path | None,
        Parameter(group=WORK, help="ONNX file, at this path on every node (unset: barcodes)"),
    ] = None
    device: Annotated[Device | None, Parameter(group=WORK, help="Where it runs")] = None
    actors: Annotated[
        int | None,
        Parameter(group=WORK, help="Processes (unset: as many as there are CPUs or GPUs for)"),
    ] = None
    cpus: Annotated[float, Parameter(group=WORK, help="CPUs of each")] = 1.0
    gpus: Annotated[float, Parameter(group=WORK, help="GPUs of each, such as 0.5")] = 0.0
    batch: Annotated[int, Parameter(group=WORK, help="Images handed over together")] = 32
    block: Annotated[
        int,
        Parameter(group=WORK, help="Images in a file of results; a killed process loses one"),
    ] = 1000


@dataclass(frozen=True)
class FormChoice:
    """The input and the output."""

    column: Annotated[
        str | None,
        Parameter(
            group=FORM,
            help="SOURCE is Parquet: its column with image files; `filename` has their names",
        ),
    ] = None
    coco: Annotated[
        Path | None, Parameter(group=FORM, help="Also write a COCO file, on this machine")
    ] = None
    resume: Annotated[
        bool, Parameter(group=FORM, help="Go on with a run that broke off", negative="")
    ] = False


def detect_dataset(
    source: Annotated[str, Parameter(help="Folder of images or of Parquet files, or its URI")],
    output: Annotated[str, Parameter(help="Folder for the results, or its URI")],
    *,
    work: Annotated[WorkChoice, Parameter("*")] = WorkChoice(),
    form: Annotated[FormChoice, Parameter("*")] = FormChoice(),
    options: Annotated[FindingChoice, Parameter("*")] = FindingChoice(),
) -> int:
    """Detect objects in millions of images, on every node of a Ray cluster or on this machine.

    An image that cannot be used has its reason in the results. A run that was stopped or killed
    goes on with `--resume`.

    Example: `python deploy/ray/detect_dataset.py s3://bucket/photos s3://bucket/boxes`
    """
    configure_logs("console", "warning")
    try:
        job = _job(uri_of(source), uri_of(output), work, form, options)
        begin(job, resume=form.resume)
        _start_ray(job)
        return _carry_out(job, form)
    except (SourceError, WrongSettingError, FileNotFoundError) as error:
        print_error(str(error))
        return WRONG_USAGE
    except ModuleNotFoundError as error:
        print_error(f"this needs the extra ray: pip install 'yolox-serve[ray]' ({error})")
        return FAILED
    except (StartupError, ServiceError, OSError) as error:
        print_error(str(error))
        return FAILED


def uri_of(name: str) -> str:
    """The URI of a folder; a path is made one, for Ray's other processes run elsewhere."""
    # A single letter is a drive of Windows.
    has_scheme = len(urlsplit(name).scheme) > 1
    return name.rstrip("/") if has_scheme else Path(name).resolve().as_uri()


def _job(
    source: str, output: str, work: WorkChoice, form: FormChoice, options: FindingChoice
) -> DatasetJob:
    asked: dict[str, Any] = {"model": work.model, "device": work.device}
    settings = read_settings({name: value for name, value in asked.items() if value is not None})
    if work.batch < 1 or work.block < 1 or (work.actors is not None and work.actors < 1):
        raise SourceError("--actors, --batch and --block must be at least 1")
    if not 0 < work.cpus < math.inf or not 0 <= work.gpus < math.inf:
        raise SourceError("--cpus must be above 0, and --gpus at least 0")
    return DatasetJob(
        source,
        output,
        form.column,
        work.actors or 0,
        work.cpus,
        work.gpus,
        work.batch,
        work.block,
        _confined(settings, work),
        options_of(options),
    )


def _confined(settings: Settings, work: WorkChoice) -> Settings:
    """Settings with as many threads as the process has CPUs: Ray does not confine it to them."""
    if work.gpus or settings.engine_threads is not None:
        return settings
    alone = {"engine_instances": max(1, round(work.cpus)), "engine_threads": 1}
    return settings.model_copy(update=alone)


def _start_ray(job: DatasetJob) -> None:
    """Join the cluster that the environment names, or start Ray on this machine."""
    os.environ.setdefault(NICENESS, "0")
    import ray  # noqa: PLC0415 - an extra

    if os.environ.get("RAY_ADDRESS") or ray.is_initialized():
        ray.init(ignore_reinit_error=True)
        return
    # More than there are, because the tasks for which some are spare hardly compute.
    cpus = max(usable_cpus(), math.ceil(job.actors * job.cpus))
    ray.init(
        num_cpus=cpus + spare_cpus(job),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
    )


def _carry_out(job: DatasetJob, form: FormChoice) -> int:
    import ray  # noqa: PLC0415 - an extra

    job = job.with_actors(actors_for(ray.cluster_resources(), job, spare_cpus(job)))
    began = time.monotonic()
    filesystem, folder = FileSystem.from_uri(job.results)
    before = summarise(filesystem, folder).images
    carry_out(job)
    seconds = time.monotonic() - began
    found = summarise(filesystem, folder)
    if form.coco is not None:
        _write_coco(job, form.coco)
    rate = (found.images - before) / seconds
    skipped = f", {found.failed} skipped" if found.failed else ""
    sys.stderr.write(
        f"{found.images} images{skipped}, {found.detections} objects, {rate:.1f} images/s\n"
    )
    return 1 if found.failed else 0


def actors_for(resources: dict[str, float], job: DatasetJob, spare: int) -> int:
    """The actors that are asked for, or else as many as a cluster has room for.

    More than it has room for are warned of: a cluster may grow.

    Args:
        resources: The cluster's resources, as Ray tells of them.
        job: The job; 0 actors leave the number to this function.
        spare: CPUs that Ray needs beside the actors.

    Raises:
        SourceError: The number is left to this function, and there is no room for one.
    """
    room = [(resources.get("CPU", 0.0) - spare) / job.cpus]
    if job.gpus:
        room.append(resources.get("GPU", 0.0) / job.gpus)
    actors = int(min(room))
    if actors >= max(1, job.actors):
        return job.actors or actors
    has = ", ".join(f"{name}={resources.get(name, 0):g}" for name in ("CPU", "GPU"))
    needs = f"Ray needs CPU={spare} for its own tasks beside them"
    if not job.actors:
        raise SourceError(f"Ray has {has}, too little for one process of the model: {needs}")
    sys.stderr.write(
        f"warning: Ray has {has}, too little for {job.actors} processes of the model: {needs}; "
        "until the cluster grows, the work may stand still\n"
    )
    return job.actors


def _write_coco(job: DatasetJob, path: Path) -> None:
    # This machine may have no GPU; only the names are wanted.
    _, engine = load_first(job.settings.model_copy(update={"device": "cpu"}))
    filesystem, folder = FileSystem.from_uri(job.results)
    with path.open("w", encoding="utf-8") as out:
        write_coco(filesystem, folder, engine.contract.class_names, out)
