"""`yolox-serve detect`: the command line of a run."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, cast

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.command.sources import WrongSettingError, read_settings
from service.console import WRONG_USAGE, print_error
from service.cpus import usable_cpus
from service.errors import ServiceError, StartupError
from service.observe.logs import configure_logs
from service.settings import Settings
from yolox_client import YoloxClientError
from yolox_client.options import Options
from yolox_serve.detect.arguments import (
    SOURCE,
    FindingChoice,
    ModelChoice,
    OutputChoice,
    VideoChoice,
    option_names,
    options_of,
)
from yolox_serve.detect.finders.finder import Finder
from yolox_serve.detect.formats import Format
from yolox_serve.detect.journal import DEVICES, begun_with
from yolox_serve.detect.run import RESUMING, Job, Run, journal_path
from yolox_serve.detect.sources import SourceError, Sources, find_sources

FAILED: Final = 1
BROKEN_PIPE: Final = 141
REMOTE_CONCURRENCY: Final = 8
BY_SUFFIX: Final[dict[str, Format]] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}


def detect(
    *source: Annotated[str, Parameter(help=SOURCE, allow_leading_hyphen=True)],
    where: Annotated[ModelChoice, Parameter("*")] = ModelChoice(),
    out: Annotated[OutputChoice, Parameter("*")] = OutputChoice(),
    video: Annotated[VideoChoice, Parameter("*")] = VideoChoice(),
    options: Annotated[FindingChoice, Parameter("*")] = FindingChoice(),
) -> int:
    """Detect objects in images, folders and videos.

    A file that cannot be used is skipped: the reason is printed, and the exit code is 1 at the end.
    To continue a run with `--output` that was stopped, repeat the command with `--resume`.

    Example: `yolox-serve detect photos/ --format coco --output boxes.json`
    """
    configure_logs("console", "warning")
    try:
        _check_words(source)
        _check_model(where)
        sources = find_sources(source, sys.stdin)
        settings = _settings(where)
        asked = _asked(where, options)
        job = _job(sources, where, out, video, _described(where, settings, asked))
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            return runner.run(_run(job, _as_begun(settings, job), where, asked))
    except (SourceError, WrongSettingError, ValueError) as error:
        print_error(str(error))
        return WRONG_USAGE
    except ModuleNotFoundError as error:
        print_error(f"this needs the extra detect: pip install 'yolox-serve[detect]' ({error})")
        return FAILED
    except (StartupError, ServiceError, YoloxClientError, OSError) as error:
        return _failed(error, out.output)


def _check_words(words: Sequence[str]) -> None:
    """Refuse options that there are not: a single hyphen is a source, so they come here, too.

    Raises:
        SourceError: There is no source, or such an option.
    """
    if not words:
        raise SourceError("name what to look into: files, folders, a video, or - for a list")
    wrong = next((word for word in words if word.startswith("-") and word != "-"), None)
    if wrong is not None:
        close = get_close_matches(wrong.partition("=")[0], list(option_names()), 1)
        hint = f"did you mean {close[0]}?" if close else "yolox-serve detect --help lists them"
        raise SourceError(f"there is no option {wrong}; {hint}")


def _check_model(where: ModelChoice) -> None:
    """Refuse options of a model here for a server, and the other way round.

    Raises:
        SourceError: There is one.
    """
    if where.server is not None and (where.model is not None or where.device is not None):
        raise SourceError(
            "--model and --device are for a model in this process; --model-name chooses one of a "
            "--server"
        )
    if where.server is None and (where.model_name is not None or where.model_version is not None):
        raise SourceError(
            "--model-name and --model-version choose a model of a --server; without one, --model "
            "names a file"
        )


def _failed(error: Exception, output: Path | None) -> int:
    """Say why the run ended; a reader that has gone away needs no words."""
    if isinstance(error, BrokenPipeError):
        # Python would complain once more when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    why = error.detail if isinstance(error, ServiceError) else str(error)
    is_kept = output is not None and journal_path(output).exists()
    print_error(f"{why}; {RESUMING}" if is_kept else why)
    return FAILED


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The server's event loop, which takes less of a CPU; None where there is none."""
    try:
        import uvloop  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def _run(job: Job, settings: Settings, where: ModelChoice, options: Options) -> int:
    # Standard output is for the results alone.
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    async with _finder(settings, where, options) as found:
        shown = Progress(
            *columns,
            console=console,
            redirect_stdout=False,
            transient=True,
            disable=not console.is_terminal,
        )
        with shown as progress:
            run = Run(job, found, progress)
            code = await run.carry_out()
    sys.stderr.write(f"{run.summary()}\n")
    return code


def _finder(
    settings: Settings, where: ModelChoice, options: Options
) -> AbstractAsyncContextManager[Finder]:
    """The finder; asking a server loads nothing that runs a model here."""
    if where.server is None:
        from yolox_serve.detect.finders.local import local_finder  # noqa: PLC0415

        return local_finder(settings, options)
    from yolox_serve.detect.finders.remote import remote_finder  # noqa: PLC0415

    return remote_finder(where.server, where.api_key, options)


def _settings(where: ModelChoice) -> Settings:
    """The settings of a model here: flags, then the environment and `.env`, as for the server."""
    asked = {"model": where.model, "device": where.device}
    return read_settings({name: value for name, value in asked.items() if value is not None})


def _as_begun(settings: Settings, job: Job) -> Settings:
    """The settings with the engine of the run that is resumed: `auto` might choose another now."""
    if job.output is None or not job.resume or settings.device != "auto":
        return settings
    device = DEVICES.get(begun_with(journal_path(job.output)).get("provider", ""))
    return settings if device is None else settings.model_copy(update={"device": device})


def _described(where: ModelChoice, settings: Settings, options: Options) -> dict[str, object]:
    """Whatever decides which boxes are found; a resumed run must have the same."""
    model = None if where.server else str(settings.model or "")
    return {"server": where.server, "model": model, "options": dict(options)}


def _asked(where: ModelChoice, options: FindingChoice) -> Options:
    """The options that are given, and the server's model."""
    named = {"model": where.model_name, "version": where.model_version}
    chosen = {name: value for name, value in named.items() if value is not None}
    return cast("Options", {**options_of(options), **chosen})


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
