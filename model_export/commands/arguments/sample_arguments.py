"""Arguments for training samples, shared by several commands."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import Natural, SizeChanges, given_options
from model_export.errors import ModelExportError
from model_export.model.variants import Variant
from model_export.samples.settings import Augmentation, AugmentationError, augmentation_for
from model_export.training.config import DrawnBarcodes

AUGMENTATION: Final = Group("Augmentation (unset: the variant's)", sort_key=20)
SHARE: Final = Parameter(metavar="P")
RANGE: Final = Parameter(metavar="LOW HIGH")
# Option to field of `Augmentation`.
FIELDS: Final = {
    "mosaic": "mosaic_probability",
    "mixup": "mixup_probability",
    "mixup_scale": "mixup_scale",
    "affine": "affine_probability",
    "rotation": "rotation_degrees",
    "shear": "shear_degrees",
    "scale": "scale",
    "translation": "translation",
    "flip": "flip_probability",
    "vertical_flip": "vertical_flip_probability",
    "hsv": "hsv_probability",
    "hue": "hue",
    "saturation": "saturation",
    "value": "value",
    "min_side": "min_side",
    "min_visible": "min_visible",
    "multiscale": "multiscale_steps",
}


@Parameter(name="*", group=AUGMENTATION)
@dataclass(frozen=True)
class AugmentationOptions:
    """The options of augmentation that are given; the others are None."""

    mosaic: Annotated[float | None, SHARE, Parameter(help="Share of mosaics, 0 to 1")] = None
    mixup: Annotated[
        float | None,
        SHARE,
        Parameter(help="Share of mosaics with MixUp; not for drawn pictures"),
    ] = None
    mixup_scale: Annotated[
        tuple[float, float] | None,
        RANGE,
        Parameter(help="Minimum and maximum scale of the image that MixUp blends in"),
    ] = None
    affine: Annotated[
        float | None,
        SHARE,
        Parameter(help="Share of other samples with the affine transform of mosaics"),
    ] = None
    rotation: Annotated[
        float | None,
        Parameter(
            metavar="DEG",
            help="Maximum rotation of mosaics and --affine samples, in degrees",
        ),
    ] = None
    shear: Annotated[
        float | None,
        Parameter(metavar="DEG", help="Maximum shear of mosaics and --affine samples, in degrees"),
    ] = None
    scale: Annotated[
        tuple[float, float] | None,
        RANGE,
        Parameter(help="Minimum and maximum scale of mosaics and --affine samples"),
    ] = None
    translation: Annotated[
        float | None,
        SHARE,
        Parameter(help="Maximum shift of mosaics and --affine samples, as a share of the size"),
    ] = None
    flip: Annotated[float | None, SHARE, Parameter(help="Share mirrored left to right")] = None
    vertical_flip: Annotated[
        float | None,
        SHARE,
        Parameter(help="Share mirrored top to bottom, for what has no upside, such as cells"),
    ] = None
    hsv: Annotated[float | None, SHARE, Parameter(help="Share whose colour is changed")] = None
    hue: Annotated[
        Natural | None, Parameter(help="Maximum change of hue, in steps of 2 degrees")
    ] = None
    saturation: Annotated[
        Natural | None, Parameter(help="Maximum change of saturation, of 255")
    ] = None
    value: Annotated[Natural | None, Parameter(help="Maximum change of brightness, of 255")] = None
    min_side: Annotated[
        float | None,
        Parameter(
            metavar="PX", help="Boxes with a shorter side, in network pixels, are no targets"
        ),
    ] = None
    min_visible: Annotated[
        float | None,
        SHARE,
        Parameter(help="Boxes of which a smaller share is in view are no targets"),
    ] = None


@Parameter(name="*", group=AUGMENTATION)
@dataclass(frozen=True)
class TrainingAugmentationOptions(AugmentationOptions):
    """Those of a training, whose sizes vary too."""

    multiscale: Annotated[
        SizeChanges | None,
        Parameter(
            help="Training sizes vary by up to N times 32 pixels, or by N down and another N up; "
            "0 for one size (unset: 5, and 3,7 for pico to tiny)"
        ),
    ] = None


def augmentation(
    given: AugmentationOptions, data: Sequence[Path | DrawnBarcodes], variant: Variant
) -> Augmentation:
    """The variant's settings, overridden by the given ones.

    Raises:
        ModelExportError: A setting is invalid or would have no effect.
    """
    changes = {FIELDS[name]: value for name, value in given_options(given).items()}
    try:
        settings = replace(augmentation_for(variant), **changes)
    except AugmentationError as error:
        flag = next(name for name, field in FIELDS.items() if field == error.name)
        raise ModelExportError(f"--{flag.replace('_', '-')} {error.fault}") from error
    _check_effect(given, data, settings)
    return settings


def _check_effect(
    given: AugmentationOptions, data: Sequence[Path | DrawnBarcodes], settings: Augmentation
) -> None:
    mosaics = settings.mosaic_probability > 0
    if given.mixup and not mosaics:
        raise ModelExportError("--mixup does nothing without mosaics: see --mosaic")
    if given.mixup_scale and not settings.mixup_probability:
        raise ModelExportError("--mixup-scale does nothing without --mixup above 0")
    if (given.hue or given.saturation or given.value) and not settings.hsv_probability:
        raise ModelExportError("--hue, --saturation and --value do nothing without --hsv above 0")
    if given.mixup and any(isinstance(each, DrawnBarcodes) for each in data):
        raise ModelExportError(
            "--mixup needs pictures known to contain boxes; drawn pictures may have none"
        )
    for name in ("rotation", "shear", "scale", "translation"):
        if getattr(given, name) and not mosaics and not settings.affine_probability:
            raise ModelExportError(f"--{name} does nothing without --mosaic or --affine above 0")
