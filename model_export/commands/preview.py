"""`yolox-serve preview`: show the augmented samples that a training would use."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import (
    SWITCH,
    Natural,
    Network,
    Positive,
    TrainingSize,
)
from model_export.commands.arguments.config_file import ConfigFile
from model_export.commands.arguments.sample_arguments import AugmentationOptions, augmentation
from model_export.commands.data_sets.arguments import DrawableDataOptions, data_source
from model_export.commands.data_sets.training_data import read_training_data
from model_export.commands.reporting import command
from model_export.errors import ModelExportError
from model_export.model.variants import usual_size
from model_export.samples.batch_plan import SampleSpec

SAMPLES: Final = Group("The samples", sort_key=10)


@Parameter(name="*", group=SAMPLES)
@dataclass(frozen=True)
class SampleOptions:
    """Which samples are drawn."""

    variant: Annotated[Network, Parameter(help="The variant whose settings apply")] = "nano"
    size: Annotated[
        TrainingSize | None, Parameter(help="Height and width in pixels (unset: the variant's)")
    ] = None
    seed: Annotated[Natural, Parameter(help="Decides what is drawn")] = 0
    closing: Annotated[bool, SWITCH, Parameter(help="Draw samples as in the closing epochs")] = (
        False
    )


@command("preview", extra="train")
def run(
    *,
    output: Annotated[Path, Parameter(metavar="PNG", help="File to write")],
    count: Annotated[Positive, Parameter(help="Samples")] = 16,
    columns: Annotated[Positive, Parameter(help="Samples per row")] = 4,
    data: DrawableDataOptions = DrawableDataOptions(),
    samples: SampleOptions = SampleOptions(),
    varied: AugmentationOptions = AugmentationOptions(),
    config: ConfigFile = None,
) -> None:
    """Draw a sheet of augmented training samples.

    Check a data set, and write a PNG sheet of training samples with their boxes, as Mosaic, MixUp
    and the other augmentations produce them.

    Example: `yolox-serve preview --data shapes/train.json --output samples.png`
    """
    del config  # cyclopts has merged it with the flags
    # Only here, so that `--help` does not wait for OpenCV.
    from PIL import Image  # noqa: PLC0415

    from model_export.report.sheets import sheet  # noqa: PLC0415
    from model_export.samples.augment import augment  # noqa: PLC0415

    read = read_training_data(data_source(data), samples.seed)
    sys.stderr.writelines(f"{line}\n" for line in read.report())
    settings = augmentation(varied, data.data or (), samples.variant)
    examples = read.pictures(None)
    side = usual_size(samples.variant)
    height, width = samples.size or (side, side)
    specs = [
        SampleSpec(i % len(examples), i // len(examples), height, width, closing=samples.closing)
        for i in range(count)
    ]
    pictures = [
        augment(examples.at_epoch(spec.epoch), spec, settings, samples.seed) for spec in specs
    ]
    drawn = sheet(pictures, read.class_names, columns)
    try:
        Image.fromarray(drawn[:, :, ::-1]).save(output, "PNG")
    except OSError as error:
        raise ModelExportError(f"cannot write {output}: {error.strerror}") from error
    sys.stdout.write(f"{output}\n")
