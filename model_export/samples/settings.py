"""How much training samples vary; without torch, so that the command line starts at once."""

import math
from dataclasses import dataclass, fields, replace
from typing import Final

from model_export.errors import ModelExportError
from model_export.model.variants import SMALL, Variant

# The largest values of settings that are no shares, which end at 1. A shear of 90 degrees would
# make a line of a picture.
LIMITS: Final = {
    "rotation_degrees": 180.0,
    "shear_degrees": 60.0,
    "hue": 90,
    "saturation": 255,
    "value": 255,
    "min_side": 1e4,
}


class AugmentationError(ModelExportError):
    """A setting has a value without a meaning.

    Args:
        name: The setting.
        value: Its value.
        wanted: The values that it can have.
    """

    def __init__(self, name: str, value: float | tuple[float, float], wanted: str) -> None:
        numbers = value if isinstance(value, tuple) else (value,)
        shown = " ".join(f"{number:g}" for number in numbers)
        self.name, self.fault = name, f"cannot be {shown}: it is {wanted}"
        super().__init__(f"augmentation: {name} {self.fault}")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much samples vary; the defaults are YOLOX's for its models s to x.

    Attributes:
        mosaic_probability: Share of samples composed of four images, outside the closing epochs.
        mixup_probability: Share of the mosaics that are blended with one more image.
        affine_probability: Share of the samples without mosaic that get a random affine map as
            mosaics do, outside the closing epochs; the others are letterboxed as the server does.
        scale: Range of the factor of an affine map, relative to the letterbox's ratio.
        mixup_scale: The same for the image that is blended in.
        rotation_degrees: Maximum rotation of an affine map to either side, degrees.
        shear_degrees: Maximum shear of an affine map along either axis, degrees.
        translation: Maximum shift of an affine map along either axis, as a share of the size.
        flip_probability: Share of samples mirrored left to right.
        vertical_flip_probability: Share of samples mirrored top to bottom.
        hsv_probability: Share of samples whose colour is changed.
        hue: Maximum change of hue, in OpenCV's unit of 2 degrees.
        saturation: Maximum change of saturation, of 255.
        value: Maximum change of value, of 255.
        min_side: Boxes with a shorter side are no targets, network pixels.
        min_visible: Boxes of which a smaller share is in view are no targets.
        multiscale_steps: Sizes vary by up to this many times 32 pixels, down and up, or by one
            number of these down and another up; 0 for one size.
    """

    mosaic_probability: float = 1.0
    mixup_probability: float = 1.0
    affine_probability: float = 0.0
    scale: tuple[float, float] = (0.1, 2.0)
    mixup_scale: tuple[float, float] = (0.5, 1.5)
    rotation_degrees: float = 10.0
    shear_degrees: float = 2.0
    translation: float = 0.1
    flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    hsv_probability: float = 1.0
    hue: int = 5
    saturation: int = 30
    value: int = 30
    min_side: float = 2.0
    min_visible: float = 0.2
    multiscale_steps: int | tuple[int, int] = 5

    def __post_init__(self) -> None:
        """Refuse values without a meaning.

        Raises:
            ModelExportError: A share is not within 0 and 1, a range is not one, or a limit is
                negative or not finite.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "multiscale_steps":
                good, wanted = min(self.size_changes) >= 0, "0 or more"
            elif isinstance(value, tuple):
                good = 0 < value[0] <= value[1] < math.inf
                wanted = "two numbers above 0, the smaller one first"
            else:
                limit = LIMITS.get(field.name, 1.0)
                good, wanted = 0 <= value <= limit, f"within 0 and {limit:g}"
            if not good:
                raise AugmentationError(field.name, value, wanted)

    @property
    def size_changes(self) -> tuple[int, int]:
        """How many times 32 pixels smaller and larger the sizes become at most."""
        steps = self.multiscale_steps
        return (steps, steps) if isinstance(steps, int) else steps


def augmentation_for(variant: Variant) -> Augmentation:
    """YOLOX's settings for a variant: small models learn from samples that vary less."""
    if variant not in SMALL:
        return Augmentation()
    mosaic_probability = 1.0 if variant == "tiny" else 0.5
    return replace(
        Augmentation(),
        mosaic_probability=mosaic_probability,
        mixup_probability=0.0,
        scale=(0.5, 1.5),
        # 320 to 640 pixels for the usual 416.
        multiscale_steps=(3, 7),
    )
