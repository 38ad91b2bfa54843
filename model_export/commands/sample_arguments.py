"""Arguments for training samples, shared by several commands."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model_export.errors import ModelExportError
from model_export.model.variants import Variant
from model_export.samples.settings import Augmentation, augmentation_for
from model_export.training.config import DrawnBarcodes

# Argument to field of `Augmentation`.
FIELDS: Final = {
    "mosaic": "mosaic_probability",
    "mixup": "mixup_probability",
    "affine": "affine_probability",
    "rotation": "rotation_degrees",
    "scale": "scale",
    "flip": "flip_probability",
    "hsv": "hsv_probability",
    "multiscale": "multiscale_steps",
}


def add_augmentation_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the augmentation; the namespace lacks arguments that are not given."""
    group = parser.add_argument_group(
        "augmentation (default: the variant's)", argument_default=argparse.SUPPRESS
    )
    group.add_argument("--mosaic", type=float, metavar="P", help="share of mosaics, 0 to 1")
    group.add_argument(
        "--mixup",
        type=float,
        metavar="P",
        help="share of mosaics with MixUp; not for drawn pictures",
    )
    group.add_argument(
        "--affine",
        type=float,
        metavar="P",
        help="share of other samples with the affine transform of mosaics",
    )
    group.add_argument(
        "--rotation",
        type=float,
        metavar="DEG",
        help="maximum rotation of mosaics and --affine samples, in degrees",
    )
    group.add_argument(
        "--scale",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="minimum and maximum scale of mosaics and --affine samples",
    )
    group.add_argument("--flip", type=float, metavar="P", help="share mirrored left to right")
    group.add_argument("--hsv", type=float, metavar="P", help="share whose colour is changed")


def augmentation(given: Mapping[str, Any], variant: Variant) -> Augmentation:
    """The variant's settings, overridden by the given ones.

    Raises:
        ModelExportError: A setting is invalid or would have no effect.
    """
    changes = {FIELDS[name]: given[name] for name in FIELDS if name in given}
    if "scale" in changes:
        changes["scale"] = tuple(changes["scale"])
    settings = replace(augmentation_for(variant), **changes)
    _check_effect(given, settings)
    return settings


def _check_effect(given: Mapping[str, Any], settings: Augmentation) -> None:
    mosaics = settings.mosaic_probability > 0
    if given.get("mixup") and not mosaics:
        raise ModelExportError("--mixup does nothing without mosaics: see --mosaic")
    if given.get("mixup") and any(isinstance(each, DrawnBarcodes) for each in given["data"]):
        raise ModelExportError(
            "--mixup needs pictures known to contain boxes; drawn pictures may have none"
        )
    for name in ("rotation", "scale"):
        if given.get(name) and not mosaics and not settings.affine_probability:
            raise ModelExportError(f"--{name} does nothing without --mosaic or --affine above 0")
