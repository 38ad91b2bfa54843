"""Name the step of decoding that an export left out, by doing it and looking at the boxes."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_export.adoption.reading.choice.candidate import Question
from model_export.adoption.reading.evidence import find
from model_export.adoption.reading.pictures import first_pictures, knows_drawn
from model_export.adoption.reading.rows import RowReading, with_activations
from model_export.adoption.reading.tables import Arrangement, Floats
from model_export.adoption.reading.trial_network import TrialNetwork
from service.core.decode import AnchorGrid

# From two values of (K, 4) rows, for x and y, and the grid: pixels.
Decoding = Callable[[Floats, AnchorGrid], Floats]

# The sum of the scores of drawn objects from which on mended boxes prove the fault.
PROOF: Final = 1.0
# Logarithms of sides in strides stay below this.
MAX_LOG: Final = 8.0

EXPONENTIAL: Final = (
    "the exponential of the sides: a side is e to the power of its raw value, times the stride"
)
GRID: Final = (
    "the grid: a cell's column and row are added to the raw values of its centre, and both "
    "together are multiplied by the stride"
)
STRIDE_OF_SIDES: Final = (
    "the stride of the sides: e to the power of a raw value is multiplied by the stride"
)
STRIDE_OF_CENTERS: Final = (
    "the stride of the centres: raw value and cell together are multiplied by the stride"
)


def _as_they_are(values: Floats, _: AnchorGrid) -> Floats:
    return values


def _times_stride(values: Floats, grid: AnchorGrid) -> Floats:
    return values * grid.strides[:, np.newaxis]


def _from_logarithms(values: Floats, grid: AnchorGrid) -> Floats:
    return _times_stride(np.exp(np.clip(values, -MAX_LOG, MAX_LOG)), grid)


def _from_scaled_logarithms(values: Floats, grid: AnchorGrid) -> Floats:
    return _from_logarithms(values / grid.strides[:, np.newaxis], grid)


def _from_offsets(values: Floats, grid: AnchorGrid) -> Floats:
    return _times_stride(values + grid.cells_ij, grid)


def _from_scaled_offsets(values: Floats, grid: AnchorGrid) -> Floats:
    return values + _times_stride(grid.cells_ij, grid)


def _from_offsets_before_cells(values: Floats, grid: AnchorGrid) -> Floats:
    """Where the grid was added after the offsets were multiplied."""
    return _from_scaled_offsets(values - grid.cells_ij, grid)


# The step that a file leaves out, and how its centres and its sides become pixels. The first counts
# of those that find as much: a small picture's grid can be taken for centres in strides.
MENDS: Final[tuple[tuple[str, Decoding, Decoding], ...]] = (
    (EXPONENTIAL, _as_they_are, _from_logarithms),
    (EXPONENTIAL, _as_they_are, _from_scaled_logarithms),
    (STRIDE_OF_SIDES, _as_they_are, _times_stride),
    (STRIDE_OF_CENTERS, _times_stride, _as_they_are),
    (GRID, _from_scaled_offsets, _as_they_are),
    (GRID, _from_offsets, _times_stride),
    (GRID, _from_offsets_before_cells, _as_they_are),
)


@dataclass(frozen=True, slots=True)
class _Mended(RowReading):
    """A reading that does the step which the graph leaves out."""

    centers: Decoding = _as_they_are
    sides: Decoding = _as_they_are

    def boxes_xyxy(self, values: Floats, grid: AnchorGrid, size: tuple[int, int]) -> Floats:
        """Decode (K, 4) box values of these cells to corners in network pixels."""
        del size
        centers, sides = self.centers(values[:, :2], grid), self.sides(values[:, 2:], grid)
        return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def missing_step(
    network: TrialNetwork, arrangements: Sequence[Arrangement], question: Question
) -> str | None:
    """The step with which the boxes of drawn objects come right, in words; None if none does.

    Args:
        network: A graph of which no reading makes sense.
        arrangements: The ways in which its outputs can hold rows.
        question: The known facts, and the choices.
    """
    if not knows_drawn(question.class_names):
        return None
    picture, *_ = first_pictures((network.height, network.width), question.class_names)
    best, found = PROOF, None
    for arrangement, values in itertools.product(arrangements, question.values):
        table = arrangement.table(network.run(picture.image, values))
        for step, centers, sides in MENDS:
            mended = _Mended(arrangement, form="cxcywh", centers=centers, sides=sides)
            reading = with_activations(mended, [table])
            sense = find(reading, table, picture, expects_drawn=True).sense
            if sense > best:
                best, found = sense, step
    return found
