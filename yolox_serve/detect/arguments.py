"""The options of `yolox-serve detect`, by their groups in its help."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, cast

from cyclopts import Group, Parameter

from service.settings import Device
from yolox_client.options import NmsMethod, Options, Preset, ScoreBy
from yolox_serve.detect.formats import Format

SOURCE: Final = (
    "Files, folders, patterns such as 'photos/**/*.jpg', videos, a camera (0), an RTSP address, or "
    "- for a list on standard input"
)
MODEL: Final = Group("A model in this process", sort_key=1)
SERVER: Final = Group("Or a server", sort_key=2)
SPEED: Final = Group("Speed", sort_key=6)
OUTPUT: Final = Group("Output", sort_key=3)
VIDEO: Final = Group("Videos", sort_key=4)
FINDING: Final = Group("Detection (unset: what the model or the server takes)", sort_key=5)


@dataclass(frozen=True)
class ModelChoice:
    """Where objects are found."""

    model: Annotated[
        Path | None,
        Parameter(
            group=MODEL,
            metavar="FILE",
            help="ONNX file with a contract (unset: the built-in barcode detector)",
        ),
    ] = None
    device: Annotated[
        Device | None, Parameter(group=MODEL, help="Where the model runs (unset: auto)")
    ] = None
    server: Annotated[
        str | None,
        Parameter(group=SERVER, metavar="URL", help="The server, such as http://127.0.0.1:8000"),
    ] = None
    model_name: Annotated[
        str | None,
        Parameter(
            group=SERVER,
            metavar="NAME",
            help="Which of the server's models to use (unset: its default)",
        ),
    ] = None
    model_version: Annotated[
        str | None,
        Parameter(group=SERVER, metavar="V", help="Which version of it (unset: its default)"),
    ] = None
    api_key: Annotated[
        str | None,
        Parameter(group=SERVER, metavar="KEY", help="The API key", env_var="YOLOX_API_KEY"),
    ] = None
    concurrency: Annotated[
        int | None,
        Parameter(
            group=SPEED,
            metavar="N",
            help="Images, or requests of four images to a server, in progress at once (unset: two "
            "images per CPU, or eight requests)",
        ),
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
            metavar="PATH",
            help="File to write, or a folder for yolo (unset: standard output)",
        ),
    ] = None
    resume: Annotated[
        bool, Parameter(group=OUTPUT, help="Continue an unfinished run", negative="")
    ] = False
    save_images: Annotated[
        Path | None,
        Parameter(
            group=OUTPUT, metavar="DIR", help="Folder for copies of the images, with boxes drawn"
        ),
    ] = None


@dataclass(frozen=True)
class VideoChoice:
    """How videos are read."""

    every: Annotated[int, Parameter(group=VIDEO, metavar="N", help="Use every Nth frame only")] = 1
    max_frames: Annotated[
        int | None,
        Parameter(
            group=VIDEO,
            metavar="N",
            help="Stop each video after N of these frames (unset: at its end)",
        ),
    ] = None
    track: Annotated[
        bool,
        Parameter(group=VIDEO, help="Follow objects, and give each a number", negative=""),
    ] = False
    save_video: Annotated[
        Path | None,
        Parameter(
            group=VIDEO,
            metavar="PATH",
            help="MP4 file to write, with boxes drawn; a folder for several videos",
        ),
    ] = None


@dataclass(frozen=True)
class FindingChoice:
    """The options of detection."""

    preset: Annotated[
        Preset | None,
        Parameter(
            group=FINDING, help="Thresholds and suppression of the article, or of YOLOX's own tools"
        ),
    ] = None
    confidence: Annotated[
        float | None,
        Parameter(group=FINDING, metavar="P", help="Minimum score to report, 0 to 1"),
    ] = None
    classes: Annotated[
        str | None,
        Parameter(group=FINDING, metavar="A,B,..", help="Only these classes, by name or id"),
    ] = None
    score_by: Annotated[
        ScoreBy | None,
        Parameter(group=FINDING, help="Score by objectness alone, or times the class probability"),
    ] = None
    nms: Annotated[
        NmsMethod | None, Parameter(group=FINDING, help="How overlapping boxes are pruned")
    ] = None
    iou: Annotated[
        float | None,
        Parameter(group=FINDING, metavar="P", help="Overlap above which boxes compete, 0 to 1"),
    ] = None
    sigma: Annotated[
        float | None, Parameter(group=FINDING, metavar="S", help="Width of soft-gaussian")
    ] = None
    class_agnostic: Annotated[
        bool | None, Parameter(group=FINDING, help="Let boxes of different classes compete")
    ] = None
    max_detections: Annotated[
        int | None, Parameter(group=FINDING, metavar="N", help="Maximum boxes in an image")
    ] = None


def option_names() -> Iterator[str]:
    """Every option as it is typed."""
    for choice in (ModelChoice, OutputChoice, VideoChoice, FindingChoice):
        for field in fields(choice):
            yield f"--{field.name.replace('_', '-')}"


def options_of(options: FindingChoice) -> Options:
    """The options that are given, as the client and the server take them."""
    given = {name: value for name, value in vars(options).items() if value is not None}
    if options.classes is not None:
        given["classes"] = [name.strip() for name in options.classes.split(",")]
    return cast("Options", given)
