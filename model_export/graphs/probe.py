"""Run a detector on known images, and check that it gives raw YOLOX rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.errors import ModelExportError
from model_export.graphs.network import Images, OnnxNetwork, Rows
from service.core.decode import anchor_grid

STRIDES: Final = (8, 16, 32)
# Above this, two images and narrow other sizes keep the time of all experiments bounded.
LARGE_PIXELS: Final = 1024 * 768


@dataclass(frozen=True, slots=True)
class Probe:
    """The outputs of a model for different images, each run alone.

    Attributes:
        images: (3, H, W, 3) uint8: noise, a ramp and grey; only the first two if they are large.
        rows: (3, A, 5 + C) float16 or float32: the raw output for each image.
        strides: Pixels per cell of each level, ascending.
    """

    images: Images
    rows: Rows
    strides: tuple[int, ...] = STRIDES

    @property
    def num_classes(self) -> int:
        """C, the number of class scores in a row."""
        return int(self.rows.shape[2]) - 5


def is_large(height: int, width: int) -> bool:
    """Whether images of this size make experiments slow."""
    return height * width > LARGE_PIXELS


def probe_network(
    network: OnnxNetwork,
    num_classes: int,
    size: tuple[int, int],
    strides: tuple[int, ...] = STRIDES,
) -> Probe:
    """Run a network and check the shape of its rows.

    Args:
        network: The model.
        num_classes: C, the number of class names.
        size: (height, width) in pixels.
        strides: Pixels per cell of each level, ascending.

    Raises:
        ModelExportError: The output has another shape, or contains inf or nan.
    """
    images = _probe_images(*size)
    rows = network.run_singly(images)
    check_rows(rows, *size, num_classes, strides)
    return Probe(images, rows, strides)


def _probe_images(height: int, width: int) -> Images:
    """Noise from a fixed seed, a ramp to the right, and the grey of the letterbox's border."""
    shape = (height, width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], shape)
    images = [noise, ramp, np.full(shape, 114, np.uint8)]
    return np.stack(images[:2] if is_large(height, width) else images)


def check_rows(
    rows: Rows,
    height: int,
    width: int,
    num_classes: int,
    strides: tuple[int, ...] = STRIDES,
) -> None:
    """Check that an output has a row of finite values for every cell.

    Args:
        rows: The output for images of `height` x `width` pixels, expected to be (N, A, 5 + C).
        height: Height of the images in pixels, a multiple of the largest stride.
        width: Width of the images in pixels, likewise.
        num_classes: C.
        strides: Pixels per cell of each level, ascending.

    Raises:
        ModelExportError: The output has another shape, or contains inf or nan.
    """
    expected = (len(anchor_grid(height, width, strides).strides), 5 + num_classes)
    if rows.shape[1:] != expected:
        raise ModelExportError(
            f"the output is (N, {', '.join(map(str, rows.shape[1:]))}), but strides "
            f"{', '.join(map(str, strides))} at {height}x{width} with {num_classes} class names "
            f"need (N, {expected[0]}, {expected[1]})"
        )
    if not np.isfinite(rows).all():
        raise ModelExportError("the model gives inf or nan on plain images")
