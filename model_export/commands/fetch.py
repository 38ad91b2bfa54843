"""`yolox-serve fetch`: download a released YOLOX model, ready to serve."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from model_export.commands.arguments.argument_types import one_of
from model_export.commands.reporting import command

Released = Literal["nano", "tiny", "s"]


@command("fetch", extra="fetch")
def run(
    model: Annotated[
        Released,
        one_of(Released),
        Parameter(name="MODEL", help="nano and tiny: 416x416; s: 640x640"),
    ],
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(
            metavar="FILE", help="File to write (unset: yolox-MODEL.onnx in the user's cache)"
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        Parameter(
            metavar="URL", env_var="YOLOX_RELEASE_URL", help="Mirror of the release (unset: GitHub)"
        ),
    ] = None,
) -> None:
    """Download a released YOLOX model, and adopt it.

    The models are those of the YOLOX release 0.1.1rc0 (COCO, 80 classes, Apache-2.0). Check the
    file's SHA-256 sum, adopt it, and print the path of the result. An interrupted download resumes
    where it stopped; a model that is already there is not downloaded again.

    Example: `yolox-serve serve --model $(yolox-serve fetch nano)`
    """
    # Only here, so that `--help` and the other commands need none of these packages.
    from platformdirs import user_cache_path  # noqa: PLC0415

    from model_export.adoption.fetch import RELEASE_URL, RELEASES, fetch, is_fetched  # noqa: PLC0415
    from model_export.errors import ModelExportError  # noqa: PLC0415

    release = RELEASES[model]
    cache = user_cache_path("yolox-serve", appauthor=False)
    path = output or cache / f"{release.model_name}.onnx"
    if not is_fetched(release, path):
        if output and output.exists():
            raise ModelExportError(f"{output} exists and is another model; choose another --output")
        with _progress(release.file_name, release.size) as on_progress:
            notes = fetch(release, path, base_url or RELEASE_URL, on_progress)
        sys.stderr.writelines(f"{note}\n" for note in notes)
    sys.stdout.write(f"{path}\n")


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
