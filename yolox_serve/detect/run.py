"""A run: every source through a finder, into the output."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from rich.progress import Progress

from yolox_client import ImageResult, UnusableImageError
from yolox_serve.detect.finders.finder import Finder
from yolox_serve.detect.formats import Coco, Csv, Format, Json, JsonLines, LabelStudio, Writer, Yolo
from yolox_serve.detect.items import FrameCoding, Item, OpenVideo, open_video, still_item
from yolox_serve.detect.journal import Journal
from yolox_serve.detect.pictures import VideoFile, save_picture
from yolox_serve.detect.records import Key, Record, frame_name, reason
from yolox_serve.detect.sources import SourceError, Sources, Video
from yolox_serve.detect.stream import Stream
from yolox_serve.detect.tracking import Tracker

INTERRUPTED: Final = 130
SOME_FAILED: Final = 1
RESUMING: Final = "the same command with --resume goes on from here"


@dataclass(frozen=True, slots=True)
class Job:
    """A run's sources and everything that is to come of them.

    Attributes:
        sources: The images and videos.
        form: The format.
        output: The file, or for YOLO the folder; None for standard output.
        resume: Whether to go on with a run that broke off.
        every: Number of frames of a video of which one is looked into.
        max_frames: Frames to look into of each video; None for all.
        track: Whether to follow objects through videos.
        save_images: Folder for the pictures with their boxes.
        save_video: Video file, or folder of them, with the boxes of each frame.
        concurrency: Batches that are under way at a time.
        coding: How frames become files.
        settings: Whatever else must be the same when a run is resumed.
    """

    sources: Sources
    form: Format
    output: Path | None
    resume: bool
    every: int
    max_frames: int | None
    track: bool
    save_images: Path | None
    save_video: Path | None
    concurrency: int
    coding: FrameCoding
    settings: dict[str, object] = field(default_factory=dict)


class Run:
    """Carries out a job.

    Args:
        job: The job.
        finder: Finds the objects.
        progress: Shows how far it is, and takes the lines about images that were skipped.
    """

    def __init__(self, job: Job, finder: Finder, progress: Progress) -> None:
        self._job = job
        self._stream = Stream(finder, job.concurrency, job.save_images)
        self._names = finder.class_names
        self._found_by = finder.found_by
        self._progress = progress
        self._task = progress.add_task("detecting", total=_total(job), rate="")
        self._began = time.monotonic()
        self._resumed = 0
        self.detections = 0
        self.images = 0
        self.failed = 0

    async def carry_out(self) -> int:
        """Look into every source; the exit code is 0, 1 if images were skipped, 130 if stopped."""
        job = self._job
        with _stopping_at_interrupts(self._stop), ExitStack() as stack:
            if job.output is None:
                writer = writer_of(job, self._names, stack)
                complete = await self._look(set(), writer.add)
                if complete:
                    writer.end()
            else:
                complete = await self._look_and_keep(job.output, stack)
        if not complete:
            return INTERRUPTED
        return SOME_FAILED if self.failed else 0

    async def _look_and_keep(self, output: Path, stack: ExitStack) -> bool:
        """Keep what is found until everything is, and then write it; gives whether it is."""
        described = {"format": self._job.form, "every": self._job.every} | self._job.settings
        path = journal_path(output)
        journal = stack.enter_context(
            Journal(path, described, self._found_by, resume=self._job.resume)
        )
        done = set[Key]()
        for record in journal.records():
            done.add(record.key)
            self._count(record, shown=False)
        self._resumed = len(done)
        if not await self._look(done, journal.add):
            print(f"stopped after {_counted(self.images, 'image')}; {RESUMING}", file=sys.stderr)  # noqa: T201
            return False
        _write_all(writer_of(self._job, self._names, stack), journal)
        journal.remove()
        return True

    async def _look(self, done: AbstractSet[Key], take: Callable[[Record], None]) -> bool:
        """Look into everything that is not done yet; gives whether the run is complete.

        Whoever stops a camera or a stream has all of it.
        """
        async for record in self._records(done):
            take(record)
            self._count(record)
        live = any(video.live for video in self._job.sources.videos)
        return live or not self._stream.stopped

    async def _records(self, done: AbstractSet[Key]) -> AsyncIterator[Record]:
        """The records of everything that is not done yet."""
        job = self._job
        stills = (still_item(still) for still in job.sources.stills)
        waiting = (item for item in stills if (item.source, None) not in done)
        async for item, result in self._stream.results(waiting):
            yield Record(item.source, result)
        for video in job.sources.videos:
            if self._stream.stopped or (video.name, None) in done:
                continue
            frames = [frame for name, frame in done if name == video.name and frame is not None]
            async for record in self._frames(video, max(frames, default=-1) + 1, len(frames)):
                yield record

    async def _frames(self, video: Video, first: int, before: int) -> AsyncIterator[Record]:
        """The records of a video's frames, or the one that says why there are none."""
        job = self._job
        try:
            with open_video(video) as opened, ExitStack() as stack:
                last = None if job.max_frames is None else max(0, job.max_frames - before)
                items = islice(opened.items(job.every, first, job.coding), last)
                sink = FrameSink(job, opened, stack)
                async for item, result in self._stream.results(items):
                    followed = await asyncio.to_thread(sink.add, item, result)
                    yield Record(video.name, followed, item.frame, item.time_s)
        except UnusableImageError as error:
            yield Record(video.name, ImageResult(video.name, 0, 0, error=error))

    def _count(self, record: Record, *, shown: bool = True) -> None:
        self.images += 1
        self.detections += len(record.result.detections)
        self._progress.update(self._task, advance=1, rate=f"{self._rate():.0f} images/s")
        if record.result.error is not None:
            self.failed += 1
            if shown:
                name = record.source if record.frame is None else record.picture_name
                print(f"skipped {name}: {reason(record.result.error)}", file=sys.stderr)  # noqa: T201

    def _rate(self) -> float:
        """Images in a second so far, in this run."""
        return (self.images - self._resumed) / max(time.monotonic() - self._began, 1e-3)

    def summary(self) -> str:
        """The whole run in a line."""
        skipped = f" ({self.failed} of them skipped)" if self.failed else ""
        counts = f"{_counted(self.images, 'image')}{skipped}, {_counted(self.detections, 'object')}"
        return f"{counts}, {self._rate():.1f} images/s"

    def _stop(self) -> None:
        self._stream.stopped = True


class FrameSink:
    """Follows the objects of one video, and draws its frames where that is asked for.

    Args:
        job: The job.
        opened: The video.
        stack: Closes what this opens.

    Raises:
        SourceError: Objects cannot be followed here.
    """

    def __init__(self, job: Job, opened: OpenVideo, stack: ExitStack) -> None:
        frames_per_s = opened.frames_per_s / job.every
        self._folder = job.save_images
        self._tracker = Tracker(frames_per_s) if job.track else None
        self._video: VideoFile | None = None
        if job.save_video is not None:
            self._video = VideoFile(_video_path(job, opened.video), frames_per_s)
            stack.callback(self._video.close)

    def add(self, item: Item, result: ImageResult) -> ImageResult:
        """Take the next frame; gives its result with the tracks."""
        if result.error is not None or item.pixels is None or item.frame is None:
            return result
        followed = result if self._tracker is None else self._tracker.follow(result)
        if self._video is not None:
            self._video.add(item.pixels, followed)
        if self._folder is not None:
            save_picture(self._folder, frame_name(item.source, item.frame), item.pixels, followed)
        return followed


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def writer_of(job: Job, class_names: tuple[str, ...], stack: ExitStack) -> Writer:
    """The writer of the format, to the output, which the stack closes, or to standard output."""
    if job.form == "yolo":
        if job.output is None:
            raise SourceError("--format yolo writes a file for each image; name a folder: --output")
        return Yolo(job.output, class_names)
    out: TextIO = sys.stdout
    if job.output is not None:
        out = stack.enter_context(job.output.open("w", encoding="utf-8", newline=""))
    if job.form == "coco":
        return Coco(out, class_names)
    writers: dict[str, Callable[[Any], Writer]] = {
        "json": Json, "jsonl": JsonLines, "csv": Csv, "labelstudio": LabelStudio
    }  # fmt: skip
    return writers[job.form](out)


def journal_path(output: Path) -> Path:
    """The file beside an output that keeps the records of an unfinished run."""
    return output.with_name(f"{output.name}.unfinished.jsonl")


@contextmanager
def _stopping_at_interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C finish what is under way; the second ends the program."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop()
        loop.remove_signal_handler(signal.SIGINT)

    # Windows has none; there Ctrl-C ends the program, whose journal stays.
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)


def _write_all(writer: Writer, journal: Journal) -> None:
    for record in journal.records():
        writer.add(record)
    writer.end()


def _total(job: Job) -> int | None:
    """The number of images; None where a video's is not known."""
    if not job.sources.videos:
        return len(job.sources.stills)
    return None


def _video_path(job: Job, video: Video) -> Path:
    path = job.save_video or Path()
    return path if path.suffix else path / f"{Path(video.name).stem or 'video'}.mp4"
