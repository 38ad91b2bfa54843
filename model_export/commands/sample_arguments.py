"""The arguments about training samples, which more than one command takes."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model_export.model.variants import Variant
from model_export.training.recipe import SIZE_STEP, Augmentation, augmentation_for

# Argument to field of `Augmentation`.
FIELDS: Final = {
    "mosaic": "mosaic_probability",
    "mixup": "mixup_probability",
    "rotation": "rotation_degrees",
    "scale": "scale",
    "flip": "flip_probability",
    "hsv": "hsv_probability",
    "multiscale": "multiscale_steps",
}


def add_augmentation_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe how much samples vary; what is not given is left out of the namespace."""
    group = parser.add_argument_group(
        "augmentation (default: the variant's)", argument_default=argparse.SUPPRESS
    )
    group.add_argument("--mosaic", type=float, metavar="P", help="share of mosaics, 0 to 1")
    group.add_argument("--mixup", type=float, metavar="P", help="share of mosaics with MixUp")
    group.add_argument("--rotation", type=float, metavar="DEG", help="greatest, in degrees")
    group.add_argument(
        "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="least and greatest factor"
    )
    group.add_argument("--flip", type=float, metavar="P", help="share mirrored left to right")
    group.add_argument("--hsv", type=float, metavar="P", help="share whose colour is changed")
    group.add_argument(
        "--multiscale",
        type=natural,
        metavar="N",
        help="training sizes vary by up to so many times 32 pixels; 0 for one size",
    )


def augmentation(given: Mapping[str, Any], variant: Variant) -> Augmentation:
    """The variant's settings, with those that were given.

    Raises:
        ModelExportError: One of them has no meaning.
    """
    changes = {FIELDS[name]: given[name] for name in FIELDS if name in given}
    if "scale" in changes:
        changes["scale"] = tuple(changes["scale"])
    return replace(augmentation_for(variant), **changes)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def natural(text: str) -> int:
    """A whole number from 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def size(text: str) -> tuple[int, int]:
    """(height, width) from `416` or `320x416`, multiples of 32."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
        height, width = sides * 2 if len(sides) == 1 else sides
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is not N or HxW, such as 320x416") from error
    if min(height, width) < 1 or height % SIZE_STEP or width % SIZE_STEP:
        raise argparse.ArgumentTypeError(f"{text} has sides that are not multiples of {SIZE_STEP}")
    return height, width
