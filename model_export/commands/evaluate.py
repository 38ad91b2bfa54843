"""`python -m model_export evaluate`: measure a running server on a COCO data set."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from model_export.errors import ModelExportError
from service.core.contract import NmsMethod, ScoreBy

if TYPE_CHECKING:
    from model_export.coco import Metrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Post every image of a COCO json to a running server, and print the COCO metrics of what "
        "it finds. Classes are matched by name. The thresholds default to those with which "
        "published YOLOX results are measured, not to those for use."
    )
    parser.add_argument(
        "--server", required=True, metavar="URL", help="such as http://127.0.0.1:8000"
    )
    parser.add_argument(
        "--annotations", required=True, type=Path, metavar="JSON", help="COCO annotations"
    )
    parser.add_argument(
        "--images", required=True, type=Path, metavar="DIR", help="folder of the images"
    )
    parser.add_argument("--api-key", metavar="KEY", help="(default: $YOLOX_API_KEY)")
    parser.add_argument(
        "--concurrency",
        type=_positive,
        default=8,
        metavar="N",
        help="requests at once (default: 8)",
    )
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the detections there")
    parser.add_argument("--metrics", type=Path, metavar="JSON", help="write the metrics there")
    _add_option_arguments(parser.add_argument_group("options of each request"))


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the metrics, and write the files asked for."""
    # Only here, so that `--help` and the other commands need none of these packages.
    from model_export.coco import measure, read_coco_set  # noqa: PLC0415
    from model_export.evaluate import detect_all  # noqa: PLC0415
    from model_export.server_detector import ServerDetector, connect  # noqa: PLC0415

    coco = read_coco_set(arguments.annotations, arguments.images)
    for path in (arguments.output, arguments.metrics):
        if path and not path.parent.is_dir():
            raise ModelExportError(f"cannot write {path}: there is no such folder")
    api_key = arguments.api_key or os.environ.get("YOLOX_API_KEY")
    with (
        connect(arguments.server, api_key) as client,
        _progress(len(coco.images)) as on_image,
    ):
        detector = ServerDetector(client, _options(arguments))
        results = detect_all(detector, coco, concurrency=arguments.concurrency, on_image=on_image)
    metrics = measure(coco, results)
    _write(arguments.output, json.dumps(results))
    _write(arguments.metrics, metrics.to_json())
    sys.stdout.write(_report(metrics))


def _add_option_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--confidence", type=float, default=0.001, metavar="P", help="least score (default: 0.001)"
    )
    group.add_argument(
        "--score-by", choices=get_args(ScoreBy), default="joint", help="(default: joint)"
    )
    group.add_argument(
        "--nms",
        choices=get_args(NmsMethod),
        default="hard",
        help="suppression of overlaps (default: hard)",
    )
    group.add_argument(
        "--iou", type=float, default=0.65, metavar="P", help="overlap that counts (default: 0.65)"
    )
    group.add_argument(
        "--sigma", type=float, metavar="S", help="width of soft-gaussian (default: the server's)"
    )
    group.add_argument(
        "--class-agnostic",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="whether boxes of different classes compete (default: no)",
    )
    group.add_argument(
        "--max-detections",
        type=_positive,
        metavar="N",
        help="most boxes of an image (default: the server's limit)",
    )


def _options(arguments: argparse.Namespace) -> dict[str, str]:
    """The query parameters; an option that is not set is left to the server."""
    options = {
        "confidence": arguments.confidence,
        "score_by": arguments.score_by,
        "nms": arguments.nms,
        "iou": arguments.iou,
        "sigma": arguments.sigma,
        "class_agnostic": str(arguments.class_agnostic).lower(),
        "max_detections": arguments.max_detections,
    }
    return {name: str(value) for name, value in options.items() if value is not None}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, if that is a terminal, and what to call after each image."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import MofNCompleteColumn, Progress  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error.strerror}") from error


def _report(metrics: "Metrics") -> str:
    """One line for each metric and class: the name, and the value or a dash."""
    by_class = {f"AP of {name}": value for name, value in metrics.ap_by_class.items()}
    rows = {**metrics.overall, **by_class}
    width = max(map(len, rows))
    return "".join(
        f"{label:<{width}}  {'-' if value is None else format(value, '.4f')}\n"
        for label, value in rows.items()
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number
