"""`yolox-serve detect`: the command line of a run."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, cast

from cyclopts import Group, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.command.sources import WrongSettingError, read_settings
from service.console import WRONG_USAGE, print_error
from service.cpus import usable_cpus
from service.errors import ServiceError, StartupError
from service.observe.logs import configure_logs
from service.settings import Device, Settings
from yolox_client import YoloxClientError
from yolox_client.options import NmsMethod, Options, Preset, ScoreBy
from yolox_serve.detect.finders import Finder, local_finder, remote_finder
from yolox_serve.detect.formats import Format
from yolox_serve.detect.run import Job, Run
from yolox_serve.detect.sources import SourceError, Sources, find_sources

FAILED: Final = 1
BROKEN_PIPE: Final = 141
REMOTE_CONCURRENCY: Final = 8
BY_SUFFIX: Final[dict[str, Format]] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}

SOURCE: Final = (
    "Files, folders, patterns such as 'photos/**/*.jpg', videos, a camera (0), an RTSP address, or "
    "- for a list on standard input"
)
MODEL: Final = Group("The model, here or on a server", sort_key=1)
OUTPUT: Final = Group("Output", sort_key=2)
VIDEO: Final = Group("Videos", sort_key=3)
FINDING: Final = Group("Detection; unset, the model's or the server's defaults", sort_key=4)


@dataclass(frozen=True)
class ModelChoice:
    """Where objects are found."""

    model: Annotated[
        Path | None,
        Parameter(group=MODEL, help="ONNX file with a contract (unset: the barcode detector)"),
    ] = None
    device: Annotated[
        Device | None, Parameter(group=MODEL, help="Where the model runs here (unset: auto)")
    ] = None
    server: Annotated[
        str | None,
        Parameter(group=MODEL, help="Address of a server to ask, instead of a model here"),
    ] = None
    api_key: Annotated[
        str | None,
        Parameter(group=MODEL, help="The server's API key", env_var="YOLOX_API_KEY"),
    ] = None
    concurrency: Annotated[
        int | None,
        Parameter(group=MODEL, help="Images, or requests, at a time (unset: as many as pay)"),
    ] = None


@dataclass(frozen=True)
class OutputChoice:
    """The output, and its format."""

    format: Annotated[
        Format | None,
        Parameter(group=OUTPUT, help="Format (unset: by the name of the output, else jsonl)"),
    ] = None
    output: Annotated[
        Path | None,
        Parameter(
            ("--output", "-o"),
            group=OUTPUT,
            help="File to write, for yolo a folder (unset: standard output)",
        ),
    ] = None
    resume: Annotated[
        bool, Parameter(group=OUTPUT, help="Go on with a run that broke off", negative="")
    ] = False
    save_images: Annotated[
        Path | None,
        Parameter(group=OUTPUT, help="Folder for the images and frames with their boxes"),
    ] = None


@dataclass(frozen=True)
class VideoChoice:
    """How videos are read."""

    every: Annotated[int, Parameter(group=VIDEO, help="Look into one frame of this many")] = 1
    max_frames: Annotated[
        int | None, Parameter(group=VIDEO, help="Frames to look into of each video (unset: all)")
    ] = None
    track: Annotated[
        bool, Parameter(group=VIDEO, help="Number objects through a video", negative="")
    ] = False
    save_video: Annotated[
        Path | None,
        Parameter(group=VIDEO, help="MP4 file with the boxes; a folder for several videos"),
    ] = None


@dataclass(frozen=True)
class FindingChoice:
    """The options of detection."""

    preset: Annotated[
        Preset | None,
        Parameter(group=FINDING, help="Thresholds of the article, or of YOLOX's own tools"),
    ] = None
    confidence: Annotated[
        float | None, Parameter(group=FINDING, help="Minimum score to report, 0 to 1")
    ] = None
    classes: Annotated[
        str | None, Parameter(group=FINDING, help="Only these: names or ids, with commas")
    ] = None
    score_by: Annotated[
        ScoreBy | None,
        Parameter(group=FINDING, help="Score by objectness alone, or with the class probability"),
    ] = None
    nms: Annotated[
        NmsMethod | None, Parameter(group=FINDING, help="How overlapping boxes are pruned")
    ] = None
    iou: Annotated[
        float | None, Parameter(group=FINDING, help="Overlap above which boxes compete, 0 to 1")
    ] = None
    sigma: Annotated[float | None, Parameter(group=FINDING, help="Width of soft-gaussian")] = None
    class_agnostic: Annotated[
        bool | None, Parameter(group=FINDING, help="Whether boxes of different classes compete")
    ] = None
    max_detections: Annotated[
        int | None, Parameter(group=FINDING, help="Maximum number of boxes in an image")
    ] = None


def detect(
    *source: Annotated[str, Parameter(help=SOURCE, allow_leading_hyphen=True)],
    where: Annotated[ModelChoice, Parameter("*")] = ModelChoice(),
    out: Annotated[OutputChoice, Parameter("*")] = OutputChoice(),
    video: Annotated[VideoChoice, Parameter("*")] = VideoChoice(),
    options: Annotated[FindingChoice, Parameter("*")] = FindingChoice(),
) -> int:
    """Detect objects in images, folders and videos.

    A file that cannot be used is skipped with its reason, and the exit code is 1 at the end. A run
    with `--output` that was stopped goes on with `--resume`.

    Example: `yolox-serve detect photos/ --format coco --output boxes.json`
    """
    configure_logs("console", "warning")
    try:
        _check_words(source)
        sources = find_sources(source, sys.stdin)
        settings = _settings(where)
        job = _job(sources, where, out, video, _described(where, settings, options))
        return asyncio.run(_run(job, settings, where, options_of(options)))
    except (SourceError, WrongSettingError, ValueError) as error:
        print_error(str(error))
        return WRONG_USAGE
    except ModuleNotFoundError as error:
        print_error(f"this needs the extra detect: pip install 'yolox-serve[detect]' ({error})")
        return FAILED
    except (StartupError, ServiceError, YoloxClientError, OSError) as error:
        return _failed(error)


def _check_words(words: Sequence[str]) -> None:
    """Refuse options that there are not: a single hyphen is a source, so they come here, too.

    Raises:
        SourceError: There is no source, or such an option.
    """
    if not words:
        raise SourceError("name what to look into: files, folders, a video, or - for a list")
    wrong = next((word for word in words if word.startswith("-") and word != "-"), None)
    if wrong is not None:
        choices = (ModelChoice, OutputChoice, VideoChoice, FindingChoice)
        names = [f"--{field.name}" for choice in choices for field in fields(choice)]
        close = get_close_matches(wrong.partition("=")[0], [n.replace("_", "-") for n in names], 1)
        hint = f"did you mean {close[0]}?" if close else "yolox-serve detect --help lists them"
        raise SourceError(f"there is no option {wrong}; {hint}")


def _failed(error: Exception) -> int:
    """Say why the run ended; a reader that has gone away needs no words."""
    if isinstance(error, BrokenPipeError):
        # Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    print_error(error.detail if isinstance(error, ServiceError) else str(error))
    return FAILED


async def _run(job: Job, settings: Settings, where: ModelChoice, options: Options) -> int:
    finder: AbstractAsyncContextManager[Finder]
    if where.server is None:
        finder = local_finder(settings, options)
    else:
        finder = remote_finder(where.server, where.api_key, options)
    # Standard output is for the results alone.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    async with finder as found:
        with Progress(*columns, console=console, redirect_stdout=False, transient=True) as progress:
            run = Run(job, found, progress)
            code = await run.carry_out()
    sys.stderr.write(f"{run.summary()}\n")
    return code


def _settings(where: ModelChoice) -> Settings:
    """The settings of a model here: flags, then the environment and `.env`, as for the server."""
    asked = {"model": where.model, "device": where.device}
    return read_settings({name: value for name, value in asked.items() if value is not None})


def _described(where: ModelChoice, settings: Settings, options: FindingChoice) -> dict[str, object]:
    """Whatever decides which boxes are found; a resumed run must have the same."""
    model = None if where.server else str(settings.model or "")
    return {"server": where.server, "model": model, "options": dict(options_of(options))}


def options_of(options: FindingChoice) -> Options:
    """The options that are given, as the client and the server take them."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if options.classes is not None:
        given["classes"] = [name.strip() for name in options.classes.split(",")]
    return cast("Options", given)


def _job(
    sources: Sources,
    where: ModelChoice,
    out: OutputChoice,
    video: VideoChoice,
    described: dict[str, object],
) -> Job:
    """The job that the command line describes.

    Raises:
        SourceError: Two options, or an option and the sources, do not go together.
    """
    form = out.format or BY_SUFFIX.get(out.output.suffix.lower() if out.output else "", "jsonl")
    _check_output(sources, out, form)
    _check_video(sources, out, video)
    usual = REMOTE_CONCURRENCY if where.server else 2 * usable_cpus()
    return Job(
        sources,
        form,
        out.output,
        out.resume,
        video.every,
        video.max_frames,
        video.track,
        out.save_images,
        video.save_video,
        where.concurrency or usual,
        ".jpg" if where.server else ".bmp",
        described,
    )


def _check_output(sources: Sources, out: OutputChoice, form: Format) -> None:
    if form == "yolo" and out.output is None:
        raise SourceError("--format yolo writes a file for each image; name a folder: --output")
    if out.resume and out.output is None:
        raise SourceError("--resume needs the --output of the run that broke off")
    if out.output is not None and form != "yolo" and out.output.is_dir():
        raise SourceError(f"--output {out.output} is a folder; name a file")
    stems = Counter(Path(still.name).with_suffix("") for still in sources.stills)
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if form == "yolo" and twice is not None:
        raise SourceError(
            f"several images are named {twice}, so their YOLO labels would be the same file"
        )


def _check_video(sources: Sources, out: OutputChoice, video: VideoChoice) -> None:
    if video.every < 1 or (video.max_frames is not None and video.max_frames < 1):
        raise SourceError("--every and --max-frames must be at least 1")
    of_videos = video.track or video.save_video is not None
    if of_videos and not sources.videos:
        raise SourceError("--track and --save-video need a video, a camera or a stream")
    if of_videos and out.resume:
        raise SourceError("--track and --save-video begin at the first frame: without --resume")
    several = len(sources.videos) > 1 and video.save_video is not None
    if several and video.save_video is not None and video.save_video.suffix:
        raise SourceError("--save-video is to hold several videos; name a folder")
