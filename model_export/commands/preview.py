"""`python -m model_export preview`: show the augmented samples that a training would use."""

import argparse
import sys
from pathlib import Path

from model_export.commands.argument_types import (
    natural,
    positive,
    training_size,
)
from model_export.commands.data_sets.arguments import add_data_arguments, data_source
from model_export.commands.data_sets.training_data import read_training_data
from model_export.commands.sample_arguments import add_augmentation_arguments, augmentation
from model_export.errors import ModelExportError
from model_export.model.variants import VARIANTS, plain_variant, usual_size
from model_export.samples.batch_plan import SampleSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Check a data set, and write a PNG sheet of training samples with their boxes, as Mosaic, "
        "MixUp and the other augmentations produce them."
    )
    add_data_arguments(parser.add_argument_group("the data"))
    parser.add_argument("--output", required=True, type=Path, metavar="PNG", help="file to write")
    parser.add_argument(
        "--count", type=positive, default=16, metavar="N", help="samples (default: 16)"
    )
    parser.add_argument(
        "--columns", type=positive, default=4, metavar="N", help="samples per row (default: 4)"
    )
    _add_sample_arguments(parser.add_argument_group("the samples"))
    add_augmentation_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check the data, report what was skipped, and write the sheet."""
    # Only here, so that `--help` does not wait for OpenCV.
    from PIL import Image  # noqa: PLC0415

    from model_export.report.sheets import sheet  # noqa: PLC0415
    from model_export.samples.augment import augment  # noqa: PLC0415

    source = data_source(vars(arguments))
    data = read_training_data(source, arguments.seed)
    sys.stderr.writelines(f"{line}\n" for line in data.report())
    settings = augmentation(vars(arguments), arguments.variant)
    examples = data.pictures(None)
    side = usual_size(arguments.variant)
    height, width = arguments.size or (side, side)
    specs = [
        SampleSpec(i % len(examples), i // len(examples), height, width, closing=arguments.closing)
        for i in range(arguments.count)
    ]
    pictures = [
        augment(examples.at_epoch(spec.epoch), spec, settings, arguments.seed) for spec in specs
    ]
    drawn = sheet(pictures, data.class_names, arguments.columns)
    try:
        Image.fromarray(drawn[:, :, ::-1]).save(arguments.output, "PNG")
    except OSError as error:
        raise ModelExportError(f"cannot write {arguments.output}: {error.strerror}") from error
    sys.stdout.write(f"{arguments.output}\n")


def _add_sample_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--variant",
        type=plain_variant,
        choices=VARIANTS,
        default="nano",
        help="the variant whose settings apply (default: nano)",
    )
    group.add_argument(
        "--size",
        type=training_size,
        metavar="N|HxW",
        help="height and width in pixels (default: the variant's)",
    )
    group.add_argument("--seed", type=natural, default=0, metavar="N", help="(default: 0)")
    group.add_argument(
        "--closing", action="store_true", help="draw samples as in the closing epochs"
    )
