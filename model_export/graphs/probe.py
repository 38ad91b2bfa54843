"""Run a third-party detector on known images, and check that it gives raw YOLOX rows."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from model_export.errors import ModelExportError
from model_export.graphs.network import Images, OnnxNetwork, Rows
from service.core.contract import ScoreActivation
from service.core.decode import anchor_grid

STRIDES: Final = (8, 16, 32)

# Raw box centres are offsets from their own cell; decoded centres follow the grid across the
# image. YOLOX-nano's correlation with the grid is at most 0.1 for raw boxes and at least 0.99 for
# decoded ones.
DECODED_CORRELATION: Final = 0.9


@dataclass(frozen=True, slots=True)
class Probe:
    """The outputs of a model for three different images, each run alone.

    Attributes:
        images: (3, H, W, 3) uint8: noise, grey and a ramp.
        rows: (3, A, 5 + C) float16 or float32: the raw output for each image.
        score_activation: Whether the scores are logits or probabilities.
    """

    images: Images
    rows: Rows
    score_activation: ScoreActivation

    @property
    def num_classes(self) -> int:
        """C, the number of class scores in a row."""
        return int(self.rows.shape[2]) - 5


def probe_network(
    network: OnnxNetwork,
    num_classes: int,
    *,
    size: tuple[int, int] | None,
    score_activation: ScoreActivation | Literal["auto"],
) -> Probe:
    """Run a network and check what its contract will promise.

    Args:
        network: The model.
        num_classes: C, the number of class names.
        size: (height, width) in pixels; needed if the graph leaves either axis open.
        score_activation: The kind of scores that the user declares, or `auto` to detect it.

    Raises:
        ModelExportError: The model does not behave like a raw YOLOX detector.
    """
    height, width = _network_size(network, size)
    images = _probe_images(height, width)
    rows = network.run_singly(images)
    check_rows(rows, height, width, num_classes)
    _refuse_decoded_boxes(rows, height, width)
    return Probe(images, rows, _score_activation(rows, score_activation))


def _network_size(network: OnnxNetwork, asked: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) as the graph fixes them, or from the request where the graph does not."""
    declared = (network.image.height, network.image.width)
    if asked is None and None in declared:
        raise ModelExportError("the model accepts any image size; add --size, such as 640x640")
    height, width = (known or wish for known, wish in zip(declared, asked or (0, 0), strict=True))
    if asked is not None and (height, width) != asked:
        raise ModelExportError(f"the model's size is {height}x{width}; leave --size out")
    if height <= 0 or width <= 0 or height % STRIDES[-1] or width % STRIDES[-1]:
        raise ModelExportError(f"the size is {height}x{width}; both sides must be multiples of 32")
    return height, width


def _probe_images(height: int, width: int) -> Images:
    """Noise from a fixed seed, the grey of the letterbox's border, and a ramp to the right."""
    shape = (height, width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    ramp = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    return np.stack([noise, np.full(shape, 114, np.uint8), np.broadcast_to(ramp, shape)])


def check_rows(rows: Rows, height: int, width: int, num_classes: int) -> None:
    """Check that an output has a row of finite values for every cell.

    Args:
        rows: The output for images of `height` x `width` pixels, expected to be (N, A, 5 + C).
        height: Height of the images in pixels, a multiple of 32.
        width: Width of the images in pixels, a multiple of 32.
        num_classes: C.

    Raises:
        ModelExportError: The output has another shape, or contains inf or nan.
    """
    _check_shape(rows, height, width, num_classes)
    if not np.isfinite(rows).all():
        raise ModelExportError(
            "the model gives inf or nan on plain images; is --value-range right?"
        )


def _check_shape(rows: Rows, height: int, width: int, num_classes: int) -> None:
    cells = len(anchor_grid(height, width, STRIDES).strides)
    channels = 5 + num_classes
    found = rows.shape[1:]
    if found == (cells, channels):
        return
    if found == (channels, cells):
        raise ModelExportError(
            f"the output is (N, 5 + C, A) = (N, {channels}, {cells}); re-export it transposed"
        )
    if len(found) == 2 and found[0] == cells:
        raise ModelExportError(
            f"each output row has {found[1]} values, but {num_classes} class names need "
            f"{channels} (4 box values, objectness, classes); is --names right?"
        )
    raise ModelExportError(
        f"the output is (N, {', '.join(map(str, found))}), but strides 8, 16 and 32 at "
        f"{height}x{width} with {num_classes} class names need (N, {cells}, {channels})"
    )


def _score_activation(rows: Rows, said: ScoreActivation | Literal["auto"]) -> ScoreActivation:
    scores = rows[..., 4:]
    within = bool(((scores >= 0) & (scores <= 1)).all())
    seen: ScoreActivation = "probabilities" if within else "logits"
    if said not in ("auto", seen):
        raise ModelExportError(
            f"--score-activation {said} is wrong: objectness and class values run from "
            f"{scores.min():.3g} to {scores.max():.3g}, so they are {seen}"
        )
    return seen


def _refuse_decoded_boxes(rows: Rows, height: int, width: int) -> None:
    grid = anchor_grid(height, width, STRIDES)
    cells_xy = grid.cells_ij * grid.strides[:, None]
    for centers in rows[..., :2]:
        along_axes = [_correlation(centers[:, axis], cells_xy[:, axis]) for axis in (0, 1)]
        if min(along_axes) > DECODED_CORRELATION:
            raise ModelExportError(
                "the boxes are already decoded (their centres follow the grid), but the service "
                "needs raw boxes; re-export the model with decode_in_inference off"
            )


def _correlation(values: Rows, positions: Rows) -> float:
    """Pearson's correlation coefficient, or 0 if either input is constant."""
    if np.ptp(values) == 0 or np.ptp(positions) == 0:
        return 0.0
    return float(np.corrcoef(values.astype(np.float64), positions)[0, 1])
