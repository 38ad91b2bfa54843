"""`python -m model_export fetch`: download a released YOLOX model, ready to serve."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model_export.model.variants import plain_variant

MODELS = ("nano", "tiny", "s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Download a released YOLOX model (COCO, 80 classes, Apache-2.0), check its SHA-256 sum, "
        "adopt it, and print the path of the result. An interrupted download resumes where it "
        "stopped; a model that is already there is not downloaded again."
    )
    parser.add_argument(
        "model", type=plain_variant, choices=MODELS, help="nano and tiny: 416x416; s: 640x640"
    )
    parser.add_argument(
        "--output", type=Path, help="file to write (default: yolox-MODEL.onnx in the user's cache)"
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="mirror of the release (default: $YOLOX_RELEASE_URL, else GitHub)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Fetch the model, and print where it is."""
    # Only here, so that `--help` and the other commands need none of these packages.
    from platformdirs import user_cache_path  # noqa: PLC0415

    from model_export.adoption.fetch import RELEASE_URL, RELEASES, fetch, is_fetched  # noqa: PLC0415
    from model_export.errors import ModelExportError  # noqa: PLC0415

    release = RELEASES[arguments.model]
    cache = user_cache_path("yolox-serve", appauthor=False)
    output = arguments.output or cache / f"{release.model_name}.onnx"
    if not is_fetched(release, output):
        if arguments.output and output.exists():
            raise ModelExportError(f"{output} exists and is another model; choose another --output")
        base_url = arguments.base_url or os.environ.get("YOLOX_RELEASE_URL") or RELEASE_URL
        with _progress(release.file_name, release.size) as on_progress:
            notes = fetch(release, output, base_url, on_progress)
        sys.stderr.writelines(f"{note}\n" for note in notes)
    sys.stdout.write(f"{output}\n")


@contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar if stderr is a terminal; yield the function that takes the bytes so far."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda completed: progress.update(task, completed=completed)
