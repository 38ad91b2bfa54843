"""The pixel values that are tried."""

from typing import Final

import numpy as np

from model_export.graphs.pixel_values import LEGACY, PixelValues

# The pixel values that YOLOX models and their forks are trained with, the usual one first.
USUAL_VALUES: Final = (
    PixelValues(),
    PixelValues("RGB"),
    PixelValues("RGB", (0.0, 1.0)),
    PixelValues("BGR", (0.0, 1.0)),
    LEGACY,
    PixelValues("BGR", (0.0, 1.0), LEGACY.mean[::-1], LEGACY.std[::-1]),
    PixelValues("RGB", (-1.0, 1.0)),
    PixelValues("BGR", (-1.0, 1.0)),
)
# ImageNet's mean in the units of pixels, RGB, as Caffe's models subtract it.
MEAN_255: Final = (123.675, 116.28, 103.53)
# Those of other detectors, with which backbones or training code came into forks: a mean without a
# deviation, a deviation without a mean, RGB's mean for BGR, and a division by 128.
RARE_VALUES: Final = (
    PixelValues("BGR", mean=MEAN_255[::-1]),
    PixelValues("RGB", mean=MEAN_255),
    PixelValues("BGR", (-127.5, 127.5)),
    PixelValues("RGB", (-127.5, 127.5)),
    PixelValues("RGB", (0.0, 1.0), LEGACY.mean),
    PixelValues("BGR", (0.0, 1.0), LEGACY.mean[::-1]),
    PixelValues("RGB", (-0.5, 0.5)),
    PixelValues("BGR", (-0.5, 0.5)),
    PixelValues("BGR", (0.0, 1.0), LEGACY.mean, LEGACY.std),
    PixelValues("RGB", (0.0, 1.0), std=LEGACY.std),
    PixelValues("BGR", (0.0, 1.0), std=LEGACY.std[::-1]),
    PixelValues("RGB", (0.0, 255 / 128)),
    PixelValues("BGR", (0.0, 255 / 128)),
)
# 127.5 and 128 as mean and deviation, which no picture tells from -1 to 1.
LESS_THAN_ONE: Final = (-127.5 / 128, 127.5 / 128)
TWINS: Final = {
    PixelValues("RGB", (-1.0, 1.0)): PixelValues("RGB", LESS_THAN_ONE),
    PixelValues("BGR", (-1.0, 1.0)): PixelValues("BGR", LESS_THAN_ONE),
}
# Factor between scales from which on the values of one are noise, or nothing, under the other.
OTHER_SCALE: Final = 8.0
# Differences up to which two scales, and two means in levels of 255, are of one kind.
SAME_SCALE: Final = 0.05
SAME_LEVELS: Final = 26.0


def of_scale(values: PixelValues) -> tuple[PixelValues, ...]:
    """The rare values whose scale is not far from that of others."""
    scale = values.scale.mean()
    return tuple(
        each for each in RARE_VALUES if 1 / OTHER_SCALE < each.scale.mean() / scale < OTHER_SCALE
    )


def are_kin(first: PixelValues, second: PixelValues) -> bool:
    """Whether values differ by a little brightness alone, which pictures hardly tell apart."""
    if first.color_order != second.color_order:
        return False
    scales = first.scale / second.scale
    levels = (first.shift - second.shift) / first.scale
    return bool(np.abs(scales - 1).max() <= SAME_SCALE and np.abs(levels).max() <= SAME_LEVELS)
