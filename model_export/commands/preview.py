"""`python -m model_export preview`: show the augmented samples that a training would use."""

import argparse
import sys
from pathlib import Path

from model_export.commands.argument_types import (
    natural,
    positive,
    training_data,
    training_size,
)
from model_export.commands.sample_arguments import add_augmentation_arguments, augmentation
from model_export.commands.training_data import read_training_data
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.model.variants import VARIANTS, plain_variant, usual_size
from model_export.samples.batch_plan import SampleSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Check a data set, and write a PNG sheet of training samples with their boxes, as Mosaic, "
        "MixUp and the other augmentations produce them."
    )
    parser.add_argument(
        "--data",
        required=True,
        type=training_data,
        metavar="PATH",
        help="a COCO json, a VOC folder, or barcodes:N for drawn pictures",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="images of a COCO json (default: its folder)"
    )
    parser.add_argument("--split", default="train", help="list of a VOC folder (default: train)")
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

    source = arguments.data
    if isinstance(source, Path):
        source = DataSource(source, arguments.images, arguments.split)
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
