"""`yolox-serve demo-data`: draw a small data set to try training with."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from model_export.commands.arguments.argument_types import Natural, parsed_by, whole
from model_export.commands.reporting import command

# In pixels; shapes are not recognizable on smaller pictures.
SMALLEST_SIDE: Final = 32

SubjectName = Literal["shapes", "barcodes", "dense-barcodes"]


def _side(text: str) -> int:
    number = whole(text)
    if number < SMALLEST_SIDE:
        raise ValueError(f"{text} is below {SMALLEST_SIDE}")
    return number


@command("demo-data", extra="train")
def run(
    *,
    output: Annotated[
        Path, Parameter(metavar="DIR", help="Folder to write to; created if missing")
    ],
    subject: Annotated[SubjectName, Parameter(help="The pictures")] = "shapes",
    train: Annotated[Natural, Parameter(help="Training pictures")] = 200,
    val: Annotated[Natural, Parameter(help="Validation pictures")] = 50,
    size: Annotated[
        int, parsed_by(_side, "N"), Parameter(help="Side of pictures of shapes, in pixels")
    ] = 224,
    seed: Annotated[Natural, Parameter(help="Decides what is drawn")] = 0,
) -> None:
    """Draw a small data set for a first training.

    Draw pictures of circles, squares and triangles, of barcodes, or of barcodes that are hard to
    find (so dense that they look like texture, or with bars of a few pixels), and write them with
    their boxes as two COCO data sets: train.json, val.json and the folder images. The same
    arguments give the same files.

    Example: `yolox-serve demo-data --output shapes`
    """
    # Only here, so that `--help` does not wait for OpenCV.
    from model_export.drawing import demo_data  # noqa: PLC0415

    subjects: dict[SubjectName, Callable[[], demo_data.Subject]] = {
        "shapes": lambda: demo_data.shapes(size, seed),
        "barcodes": lambda: demo_data.barcodes(seed),
        "dense-barcodes": lambda: demo_data.dense_barcodes(seed),
    }
    written = demo_data.write_demo_data(output, subjects[subject](), train=train, val=val)
    sys.stdout.writelines(f"{path}\n" for path in written)
