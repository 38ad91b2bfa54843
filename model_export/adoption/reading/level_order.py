"""Find the order of joined levels: a change in one place of a picture changes the cells there."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.adoption.reading.pictures import grey_picture
from model_export.adoption.reading.rows import RowReading, grid_of
from model_export.adoption.reading.tables import Arrangement, Floats
from model_export.adoption.reading.trial_network import TrialNetwork
from model_export.graphs.pixel_values import PixelValues

# Where the squares of noise lie, as shares of height and width, and their side.
PLACES: Final = ((0.25, 0.7), (0.7, 0.25))
SIDE: Final = 0.2
# Another order has to be better by this factor, or the usual one is taken.
MARGIN: Final = 0.9
# Orders of more levels than this are tried only forwards and backwards.
MOST_LEVELS: Final = 3

Pixels = NDArray[np.uint8]


def level_order(
    network: TrialNetwork, arrangement: Arrangement, values: Sequence[PixelValues]
) -> tuple[int, ...]:
    """The place of each level, by ascending stride, in an arrangement whose levels are joined.

    A square of noise is put on grey, twice. Under the right order, the rows that change most are
    those of the cells about the square, on every level.

    Args:
        network: The graph.
        arrangement: Its outputs; other than joined levels have no order to find.
        values: Pixel values to try; those whose answer is clearest decide.
    """
    if not arrangement.is_joined:
        return ()
    usual, *others = _orders(len(arrangement.strides))
    size = (network.height, network.width)
    answers = []
    for each in values:
        changes = [_changes(network, arrangement, each, place) for place in PLACES]
        distance = {
            order: _distance(replace(RowReading(arrangement), levels=order), changes, size)
            for order in (usual, *others)
        }
        best = min(distance, key=distance.__getitem__)
        answers.append((distance[best], best, distance[usual]))
    nearest, best, of_usual = min(answers)
    return best if nearest < MARGIN * of_usual else usual


def _orders(count: int) -> list[tuple[int, ...]]:
    usual = tuple(range(count))
    return [*itertools.permutations(usual)] if count <= MOST_LEVELS else [usual, usual[::-1]]


def _changes(
    network: TrialNetwork, arrangement: Arrangement, values: PixelValues, place: tuple[float, float]
) -> Floats:
    """(A,) float32: how much each row changes by a square of noise, as columns' shares."""
    size = (network.height, network.width)
    before, after = (
        arrangement.table(network.run(picture, values))
        for picture in (grey_picture(size), _with_noise(size, place))
    )
    apart = np.nan_to_num(np.abs(after - before))
    changes: Floats = (apart / np.maximum(apart.max(axis=0), 1e-9)).sum(axis=1)
    return changes


def _with_noise(size: tuple[int, int], place: tuple[float, float]) -> Pixels:
    picture = grey_picture(size)
    side = round(SIDE * min(size))
    top, left = (
        round(share * length - side / 2) for share, length in zip(place, size, strict=True)
    )
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture[top : top + side, left : left + side] = noise
    return picture


def _distance(reading: RowReading, changes: Sequence[Floats], size: tuple[int, int]) -> float:
    """Mean distance of changed cells from the noise, weighted, as a share of the diagonal."""
    grid = grid_of(reading, size)
    centers = (grid.cells_ij + 0.5) * grid.strides[:, np.newaxis] / np.array(size[::-1])
    distances = []
    for rows, place in zip(changes, PLACES, strict=True):
        ordered = reading.in_order(rows[:, np.newaxis], size)[:, 0]
        away = np.hypot(*(centers - np.array(place[::-1])).T)
        for stride in reading.arrangement.strides:
            weights = ordered[grid.strides == stride] ** 2
            if weights.sum() > 0:
                distances.append(float(np.average(away[grid.strides == stride], weights=weights)))
    return float(np.mean(distances)) if distances else 1.0
