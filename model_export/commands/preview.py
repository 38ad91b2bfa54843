"""`python -m model_export preview`: see what a training would see."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from model_export.errors import ModelExportError
from model_export.model.variants import VARIANTS, usual_size
from model_export.training.recipe import SIZE_STEP, Augmentation, Recipe, augmentation_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Check a data set, and write a sheet of training samples with their boxes as a PNG: what "
        "Mosaic, MixUp and the other changes make of it."
    )
    parser.add_argument(
        "--data", required=True, type=Path, metavar="PATH", help="a COCO json, or a VOC folder"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="images of a COCO json (default: its folder)"
    )
    parser.add_argument("--split", default="train", help="list of a VOC folder (default: train)")
    parser.add_argument("--output", required=True, type=Path, metavar="PNG", help="file to write")
    parser.add_argument(
        "--count", type=_positive, default=16, metavar="N", help="samples (default: 16)"
    )
    parser.add_argument(
        "--columns", type=_positive, default=4, metavar="N", help="samples in a row (default: 4)"
    )
    _add_sample_arguments(parser.add_argument_group("the samples"))


def run(arguments: argparse.Namespace) -> None:
    """Check the data, say what was left out, and write the sheet."""
    # Only here, so that `--help` does not wait for OpenCV.
    from PIL import Image  # noqa: PLC0415

    from model_export.training.annotations import read_annotations  # noqa: PLC0415
    from model_export.training.augment import augment  # noqa: PLC0415
    from model_export.training.examples import Examples, check_images  # noqa: PLC0415
    from model_export.training.preview import sheet  # noqa: PLC0415

    data = check_images(read_annotations(arguments.data, arguments.images, split=arguments.split))
    sys.stderr.writelines(f"{line}\n" for line in data.report())
    examples, settings = Examples(data), _settings(arguments)
    side = arguments.size or usual_size(arguments.variant)
    recipes = [
        Recipe(i % len(examples), i // len(examples), side, side, closing=arguments.closing)
        for i in range(arguments.count)
    ]
    pictures = [augment(examples, recipe, settings, arguments.seed) for recipe in recipes]
    drawn = sheet(pictures, data.class_names, arguments.columns)
    try:
        Image.fromarray(drawn[:, :, ::-1]).save(arguments.output, "PNG")
    except OSError as error:
        raise ModelExportError(f"cannot write {arguments.output}: {error.strerror}") from error
    sys.stdout.write(f"{arguments.output}\n")


def _add_sample_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--variant", choices=VARIANTS, default="nano", help="whose settings (default: nano)"
    )
    group.add_argument(
        "--size", type=_side, metavar="N", help="height and width in pixels (the variant's)"
    )
    group.add_argument("--seed", type=_natural, default=0, metavar="N", help="(default: 0)")
    group.add_argument(
        "--mosaic", type=float, metavar="P", help="share of mosaics, 0 to 1 (the variant's)"
    )
    group.add_argument(
        "--mixup", type=float, metavar="P", help="share of mosaics with MixUp (the variant's)"
    )
    group.add_argument("--closing", action="store_true", help="as in the closing epochs")


def _settings(arguments: argparse.Namespace) -> Augmentation:
    settings = augmentation_for(arguments.variant)
    if arguments.mosaic is not None:
        settings = replace(settings, mosaic_probability=arguments.mosaic)
    if arguments.mixup is not None:
        settings = replace(settings, mixup_probability=arguments.mixup)
    return settings


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _side(text: str) -> int:
    number = _positive(text)
    if number % SIZE_STEP:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of {SIZE_STEP}")
    return number
