"""The ways in which a graph's outputs can hold one row of values for each grid cell."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

# Strides that detectors of this family have, the usual ones first.
KNOWN_STRIDES: Final = (
    (8, 16, 32),
    (8, 16, 32, 64),
    (4, 8, 16, 32),
    (16, 32),
    (8, 16),
    (8, 16, 32, 64, 128),
    (4, 8, 16, 32, 64),
)
# Four box values and objectness.
FIXED_COLUMNS: Final = 5
# More outputs than this with a value for every cell are no detector's.
MAX_OUTPUTS: Final = 6
# With more outputs of as many values, the choices would be too many to try.
MAX_ALIKE: Final = 12


@dataclass(frozen=True, slots=True)
class Part:
    """One output as a table of a row per cell.

    Attributes:
        output: The output's name.
        has_batch: Whether its first axis counts images.
        axis: The axis that becomes the columns; the others, in order, become the rows.
        channels: Its length, the number of columns.
    """

    output: str
    has_batch: bool
    axis: int
    channels: int

    def table(self, value: Floats) -> Floats:
        """(rows, columns) of the output for one image."""
        return np.moveaxis(value, self.axis, -1).reshape(-1, self.channels)


@dataclass(frozen=True, slots=True)
class Arrangement:
    """A choice of outputs that together hold a row for each cell.

    Attributes:
        strides: Pixels per cell of each level, ascending.
        groups: The outputs side by side, for each level; one group alone holds all levels.
    """

    strides: tuple[int, ...]
    groups: tuple[tuple[Part, ...], ...]

    @property
    def is_joined(self) -> bool:
        """Whether the outputs hold all levels one after the other."""
        return len(self.groups) == 1 < len(self.strides)

    @property
    def channels(self) -> int:
        """The number of columns."""
        return sum(part.channels for part in self.groups[0])

    @property
    def seams(self) -> frozenset[int]:
        """The columns at which another output begins."""
        widths = [part.channels for part in self.groups[0]]
        return frozenset(itertools.accumulate(widths))

    def table(self, outputs: Mapping[str, Floats]) -> Floats:
        """(A, channels): the values for one image, in the order of the outputs."""
        return np.concatenate(
            [
                np.concatenate([part.table(outputs[part.output]) for part in group], axis=1)
                for group in self.groups
            ]
        )


def arrangements(
    shapes: Shapes,
    size: tuple[int, int],
    num_classes: int | None,
    strides: tuple[int, ...] | None = None,
) -> list[Arrangement]:
    """List the arrangements whose rows fit the grid and whose columns fit the classes.

    Args:
        shapes: The shape of each output for one image.
        size: (height, width) of that image in pixels.
        num_classes: C, for 5 + C columns; None allows any C from 1 up.
        strides: The strides, if the user states them; else every usual set is tried.
    """
    found: list[Arrangement] = []
    for tried in (strides,) if strides else KNOWN_STRIDES:
        if any(side % tried[-1] for side in size):
            continue
        cells = [(size[0] // stride) * (size[1] // stride) for stride in tried]
        groups = itertools.chain(
            ((group,) for group in _groups(shapes, sum(cells))), _by_level(shapes, cells)
        )
        found += [
            Arrangement(tried, group)
            for group in groups
            if _fits(sum(part.channels for part in group[0]), num_classes)
        ]
    return [each for each in found if not any(_is_part_of(each, other) for other in found)]


def _is_part_of(arrangement: Arrangement, other: Arrangement) -> bool:
    """Whether another arrangement takes the same outputs and more."""
    own, theirs = (
        {part.output for group in each.groups for part in group} for each in (arrangement, other)
    )
    return own < theirs


def _fits(channels: int, num_classes: int | None) -> bool:
    if num_classes is None:
        return channels > FIXED_COLUMNS
    return channels == FIXED_COLUMNS + num_classes


def _groups(shapes: Shapes, rows: int) -> Iterator[tuple[Part, ...]]:
    """Every choice of outputs with this many rows, those of most outputs first."""
    each = [parts for name in shapes if (parts := parts_of(name, shapes[name], rows))]
    if len(each) > MAX_ALIKE:
        return
    for count in range(min(len(each), MAX_OUTPUTS), 0, -1):
        for chosen in itertools.combinations(each, count):
            yield from itertools.product(*chosen)


def _by_level(shapes: Shapes, cells: Sequence[int]) -> Iterator[tuple[tuple[Part, ...], ...]]:
    """Every choice of outputs that hold one level each, alike for all levels."""
    levels = [list(_groups(shapes, rows)) for rows in cells]
    for first in levels[0]:
        # The axis as well: a map of 4 x 4 cells with 4 values could be read along any of its axes.
        kind = [(part.channels, part.axis) for part in first]
        others = [
            next((g for g in groups if [(part.channels, part.axis) for part in g] == kind), None)
            for groups in levels[1:]
        ]
        rest = [group for group in others if group is not None]
        if len(rest) == len(others):
            yield (first, *rest)


def parts_of(name: str, shape: Sequence[int], rows: int) -> list[Part]:
    """The ways to read an output of this shape as a table of this many rows."""
    has_batch = len(shape) > 2 and shape[0] == 1
    inner = range(1 if has_batch else 0, len(shape))
    total = int(np.prod(shape))
    return [
        Part(name, has_batch, axis, shape[axis])
        for axis in inner
        if shape[axis] and len(inner) > 1 and total == rows * shape[axis]
    ]
