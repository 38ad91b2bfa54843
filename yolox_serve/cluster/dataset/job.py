"""A data set through Ray Data: a list of images, actors that hold the model, files of results."""

import json
from dataclasses import dataclass, replace
from typing import Any, Final

from pyarrow.fs import FileSelector, FileSystem, FileType

from service.settings import Settings
from yolox_client.options import Options
from yolox_serve.cluster.dataset.listing import NAME, images_below, write_list
from yolox_serve.cluster.dataset.worker import DetectionWorker
from yolox_serve.detect.sources import SourceError

# Batches of an actor at a time: while the model finishes one, the next one is read.
BATCHES_AT_A_TIME: Final = 2
JOB: Final = "_job.json"


@dataclass(frozen=True, slots=True)
class DatasetJob:
    """A data set to look into.

    Attributes:
        source: URI of a folder of images, or of Parquet files.
        output: URI of the folder for results.
        column: For Parquet: name of the column with the image files.
        actors: Number of processes that hold the model.
        cpus: CPUs of each.
        gpus: GPUs of each.
        batch: Images in a batch.
        block: Images in a file of results; what an actor has done of one is lost if it is killed.
        settings: The server's settings.
        options: Thresholds, suppression and classes.
    """

    source: str
    output: str
    column: str | None
    actors: int
    cpus: float
    gpus: float
    batch: int
    block: int
    settings: Settings
    options: Options

    @property
    def results(self) -> str:
        """URI of the Parquet files of results."""
        return f"{self.output}/results"

    @property
    def described(self) -> dict[str, object]:
        """Whatever decides which boxes are found: a run that goes on must have the same."""
        model = str(self.settings.model or "")
        return {"source": self.source, "model": model, "options": dict(self.options)}

    @property
    def checkpoint(self) -> str:
        """URI of the names of the images whose results are written, as Ray Data keeps them."""
        return f"{self.output}/checkpoint"

    def with_actors(self, actors: int) -> "DatasetJob":
        """The same job with a number of actors."""
        return replace(self, actors=actors)


def begin(job: DatasetJob, *, resume: bool) -> None:
    """Note what is done in the output's folder.

    Raises:
        SourceError: There is no source; or another run's output, or this one's and it is not to go
            on.
    """
    source, place = FileSystem.from_uri(job.source)
    if source.get_file_info(place).type is FileType.NotFound:
        raise SourceError(f"there is no folder {job.source}")
    filesystem, folder = FileSystem.from_uri(job.output)
    file = f"{folder}/{JOB}"
    if filesystem.get_file_info(file).type is FileType.NotFound:
        filesystem.create_dir(folder, recursive=True)
        with filesystem.open_output_stream(file) as stream:
            stream.write(json.dumps(job.described).encode())
        return
    with filesystem.open_input_stream(file) as stream:
        before = json.loads(stream.readall())
    different = [name for name, value in job.described.items() if before.get(name) != value]
    if different:
        raise SourceError(
            f"the run in {job.output} had another {different[0]}; choose another folder"
        )
    if not resume:
        raise SourceError(f"there is a run in {job.output}; add --resume to go on with it")


def input_files(job: DatasetJob) -> str:
    """URI of the Parquet files that Ray reads: the source's, or a list of its images.

    Raises:
        SourceError: There are no images.
    """
    if job.column is not None:
        return job.source
    filesystem, folder = FileSystem.from_uri(job.source)
    out, to = FileSystem.from_uri(job.output)
    write_list(images_below(filesystem, folder), out, f"{to}/images")
    return f"{job.output}/images"


def spare_cpus(job: DatasetJob) -> int:
    """CPUs that Ray needs beside those of the actors; with fewer, it waits for ever.

    One is for the tasks that list, share out and write, and one for the actor that leaves out what
    an earlier run has done, if there was one.
    """
    filesystem, folder = FileSystem.from_uri(job.checkpoint)
    done = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    return 2 if done else 1


def carry_out(job: DatasetJob) -> None:
    """Look into every image that has no result yet; Ray must have been started.

    Ray Data keeps the names of the images whose results are written, beside them, and leaves those
    out when it starts again. It shows its progress.
    """
    from ray import data  # noqa: PLC0415 - an extra

    context = data.DataContext.get_current()
    context.checkpoint_config = data.checkpoint.CheckpointConfig(
        NAME, job.checkpoint, delete_checkpoint_on_success=False
    )
    columns = [NAME] if job.column is None else [NAME, job.column]
    listed = data.read_parquet(input_files(job), columns=columns)
    blocks = listed.repartition(target_num_rows_per_block=job.block)
    found = blocks.map_batches(DetectionWorker, **_actor_options(job))
    found.write_parquet(job.results)


def _actor_options(job: DatasetJob) -> dict[str, Any]:
    return {
        "fn_constructor_args": (
            job.settings,
            job.options,
            None if job.column is not None else job.source,
            job.column,
        ),
        "batch_size": job.batch,
        "batch_format": "pyarrow",
        "concurrency": job.actors,
        "num_cpus": job.cpus,
        "num_gpus": job.gpus,
        "max_concurrency": BATCHES_AT_A_TIME,
    }
