"""What is decided about a training sample before any pixel is read."""

import math
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from model_export.errors import ModelExportError
from model_export.model.variants import SMALL, Variant

# The largest stride of the network: sides are multiples of it.
SIZE_STEP: Final = 32
# The size changes after so many iterations.
ITERATIONS_PER_SIZE: Final = 10
# Keeps the random stream of sizes apart from those of samples and orders with the same seed.
SIZE_STREAM: Final = 0x51


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much samples vary; the defaults are YOLOX's for its models s to x.

    Attributes:
        mosaic_probability: Share of samples composed of four images, outside the closing epochs.
        mixup_probability: Share of the mosaics that are blended with one more image.
        affine_probability: Share of the samples without mosaic that are moved as a mosaic is,
            outside the closing epochs; the others are letterboxed as the server does it.
        scale: Least and greatest factor of a moved sample, over the letterbox's ratio.
        mixup_scale: The same of the image that is blended in.
        rotation_degrees: Greatest rotation of a moved sample to either side, degrees.
        shear_degrees: Greatest shear of a moved sample along either axis, degrees.
        translation: Greatest shift of a moved sample along either axis, share of the size.
        flip_probability: Share of samples mirrored left to right.
        hsv_probability: Share of samples whose colour is changed.
        hue: Greatest change of hue, in OpenCV's unit of 2 degrees.
        saturation: Greatest change of saturation, of 255.
        value: Greatest change of value, of 255.
        least_side: Boxes with a side below this are no targets, network pixels.
        least_visible: Boxes of which a smaller share than this is in view are no targets.
        multiscale_steps: Sizes vary by up to so many times 32 pixels; 0 for one size.
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
    hsv_probability: float = 1.0
    hue: int = 5
    saturation: int = 30
    value: int = 30
    least_side: float = 2.0
    least_visible: float = 0.2
    multiscale_steps: int = 5

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ModelExportError: A share is not within 0 and 1, a range is not one, or a limit is
                negative or not finite.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                good = 0 < value[0] <= value[1] < math.inf
            else:
                is_share = field.name.endswith("_probability")
                good = 0 <= value < math.inf and (value <= 1 or not is_share)
            if not good:
                raise ModelExportError(f"augmentation: {field.name} cannot be {value}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that one sample depends on, besides the data, the settings and the seed.

    Attributes:
        index: Which image; in a mosaic, one of the four.
        epoch: Which pass over the data, from 0.
        height: Network height in pixels.
        width: Network width in pixels.
        draw: How often the epoch took this image before, to fill a batch.
        closing: Whether this is one of the last epochs, whose samples look like served images.
    """

    index: int
    epoch: int
    height: int
    width: int
    draw: int = 0
    closing: bool = False

    def generator(self, seed: int) -> np.random.Generator:
        """The sample's own randomness: the same in whichever process it is made."""
        return np.random.default_rng((seed, self.epoch, self.index, self.draw))


def augmentation_for(variant: Variant) -> Augmentation:
    """YOLOX's settings for a model: small ones learn from samples that vary less."""
    if variant not in SMALL:
        return Augmentation()
    mosaic_probability = 1.0 if variant == "tiny" else 0.5
    return replace(
        Augmentation(),
        mosaic_probability=mosaic_probability,
        mixup_probability=0.0,
        scale=(0.5, 1.5),
    )


def training_size(
    seed: int, iteration: int, height: int, width: int, *, steps: int
) -> tuple[int, int]:
    """The network's input size in one iteration: another every 10, the same in every process.

    Args:
        seed: The run's seed.
        iteration: Counted from 0 over the whole run.
        height: Usual height in pixels, a multiple of 32.
        width: Usual width in pixels, a multiple of 32.
        steps: Greatest change of the shorter side, in steps of 32 pixels.

    Returns:
        Height and width in the usual proportion, rounded to multiples of 32.
    """
    rng = np.random.default_rng((seed, SIZE_STREAM, iteration // ITERATIONS_PER_SIZE))
    change = int(rng.integers(_least_change(height, width, steps), steps + 1))
    return _changed(height, width, change)


def least_training_size(height: int, width: int, *, steps: int) -> tuple[int, int]:
    """The smallest that `training_size` gives, whatever the seed and the iteration."""
    return _changed(height, width, _least_change(height, width, steps))


def _least_change(height: int, width: int, steps: int) -> int:
    # A size near 0 would show nothing: half of the usual one is the least.
    return max(-steps, -(min(height, width) // SIZE_STEP // 2))


def _changed(height: int, width: int, change: int) -> tuple[int, int]:
    """A size of which the shorter side is so many steps longer, in the usual proportion."""
    shorter = min(height, width) // SIZE_STEP
    factor = (shorter + change) / shorter
    return _rounded(height * factor), _rounded(width * factor)


def _rounded(side: float) -> int:
    return max(1, round(side / SIZE_STEP)) * SIZE_STEP
