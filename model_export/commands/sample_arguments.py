"""The arguments about training samples, which more than one command takes."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model_export.commands.argument_types import natural
from model_export.model.variants import Variant
from model_export.training.recipe import Augmentation, augmentation_for

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
