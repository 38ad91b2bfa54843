"""Find out by experiment which batch and image sizes a graph really accepts.

A batch is compared with each of its images run alone. Sizes are harder to compare: a cell near the
border of one image rightly gives other values in a larger image. So the windows of convolutions and
pools are first narrowed to their stride, which makes each cell independent of the border. Each cell
must then give the same values at every size as at the usual size. The narrowing does not hide a
fixed size: only slices, reshapes, upsampling and joins can contain one, and they stay as they are.
"""

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from model_export.graphs.network import Images, OnnxNetwork, Rows, load_network
from model_export.graphs.open_axes import narrow_windows, open_batch_axis, open_size_axes
from model_export.graphs.probe import STRIDES, Probe, check_rows, is_large
from service.core.decode import anchor_grid

# Allowed difference between rows that should be equal, relative for values above 1: sums may be
# computed in another order, in the precision of the output.
TOLERANCE: Final = {"float32": 1e-4, "float16": 2e-2}


class Tried(NamedTuple):
    """Images (N, H, W, 3) uint8 of one size, and the rows that a graph gives for them."""

    images: Images
    rows: Rows


@dataclass(frozen=True, slots=True)
class ProvenAxes:
    """A graph, and the batches and image sizes that it takes.

    Attributes:
        model: The graph, unchanged or with opened axes.
        batch: The only batch size, or None for any.
        dynamic_size: Whether it takes any height and width that are multiples of 32.
        notes: The results of the experiments, for the user.
        others: Images of the other sizes that were tried, and the graph's rows for them.
    """

    model: onnx.ModelProto
    batch: int | None
    dynamic_size: bool
    notes: tuple[str, ...]
    others: tuple["Tried", ...] = ()


@dataclass(frozen=True, slots=True)
class ProvenBatch:
    """A graph, the batch size it takes (None for any), and the result of the experiment."""

    model: onnx.ModelProto
    batch: int | None
    note: str


@dataclass(frozen=True, slots=True)
class ProvenSize:
    """A graph, whether it takes any size in multiples of 32, and the result of the experiment."""

    model: onnx.ModelProto
    dynamic_size: bool
    note: str
    others: tuple[Tried, ...] = ()


def prove_axes(
    model: onnx.ModelProto, network: OnnxNetwork, probe: Probe, *, fixed_size: bool
) -> ProvenAxes:
    """Find the form of a graph that takes the most batches and sizes.

    Args:
        model: The graph.
        network: The same graph, loaded.
        probe: Its outputs at its usual size.
        fixed_size: Leave height and width as they are, and promise only the usual size.
    """
    batches = prove_batches(model, network, probe)
    height, width = probe.images.shape[1:3]
    sizes = (
        ProvenSize(batches.model, False, f"size {height}x{width} only, as asked")
        if fixed_size
        else prove_sizes(batches, network, probe)
    )
    notes = (batches.note, sizes.note)
    return ProvenAxes(sizes.model, batches.batch, sizes.dynamic_size, notes, sizes.others)


def prove_batches(model: onnx.ModelProto, network: OnnxNetwork, probe: Probe) -> ProvenBatch:
    """Find a form of the graph whose rows for a batch agree with those for each image alone.

    A graph that declares an open batch axis is tried first, then a copy whose batch axis was
    opened. If neither agrees, the graph stays as it is, for one batch size only.
    """
    fixed = network.image.batch or 1
    candidates = [open_batch_axis(model, network.image.name, fixed)]
    if network.image.batch is None:
        candidates.insert(0, model)
    for candidate in candidates:
        difference, tolerance = _batch_difference(candidate, network, probe)
        if difference <= tolerance:
            return ProvenBatch(
                candidate,
                None,
                f"any batch size: a batch of {len(probe.images)} images agrees with each image "
                f"alone (largest difference {difference:.1e}, allowed {tolerance:.0e})",
            )
    return ProvenBatch(
        model, fixed, f"batch size {fixed} only: with others, the graph fails or gives other rows"
    )


def prove_sizes(batches: ProvenBatch, network: OnnxNetwork, probe: Probe) -> ProvenSize:
    """Find a form of the graph that takes any size in multiples of 32.

    A graph that declares open height and width is tried first, then a copy in which both were
    opened. If neither passes, the graph stays as it is, for one size only.

    Args:
        batches: The graph, and the batches it takes.
        network: The graph as it was first loaded.
        probe: The outputs of `network` at its usual size.
    """
    height, width = probe.images.shape[1:3]
    model = batches.model
    candidates = [open_size_axes(model, network.image, _cell_counts(height, width, probe.strides))]
    if network.image.height is None and network.image.width is None:
        candidates.insert(0, model)
    for candidate in candidates:
        try:
            difference, others = _size_difference(candidate, batches, network, probe)
        except ModelExportError as error:
            problem = error
        else:
            return ProvenSize(
                candidate,
                True,
                f"any size in multiples of {probe.strides[-1]}: at "
                f"{len(other_sizes(height, width, probe.strides[-1]))} other sizes, "
                f"cells agree with {height}x{width}, image borders aside (largest difference "
                f"{difference:.1e}, allowed {TOLERANCE[probe.rows.dtype.name]:.0e})",
                others,
            )
    return ProvenSize(model, False, f"size {height}x{width} only; other sizes fail: {problem}")


def other_sizes(height: int, width: int, step: int = STRIDES[-1]) -> list[tuple[int, int]]:
    """(height, width) in pixels of five other sizes, smaller and larger along one or both axes.

    Other sizes of large images are narrow along one axis, so that they take less time.
    """
    rows, columns = height // step, width // step
    fewer = (max(1, 2 * rows // 3), max(1, columns // 2))
    more = (rows + rows // 4 + 1, columns + columns // 3 + 1)
    few = (max(1, rows // 5), max(1, columns // 5))
    if is_large(height, width):
        grids = ((few[0], columns), (few[0], more[1]), few, (rows, few[1]), (more[0], few[1]))
    else:
        grids = ((fewer[0], columns), (rows, more[1]), fewer, more, (more[0], fewer[1]))
    return [(step * down, step * across) for down, across in grids]


def largest_difference(found: Rows, expected: Rows) -> float:
    """The largest difference between two (N, A, 5 + C) outputs, relative for values above 1."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.max(_differences(found, expected)))


def _batch_difference(
    model: onnx.ModelProto, network: OnnxNetwork, probe: Probe
) -> tuple[float, float]:
    """The largest difference between a batch and each image alone, and the tolerance."""
    try:
        batched = _load(model, network).run(probe.images)
    except ModelExportError:
        return float("inf"), 0.0
    return largest_difference(batched, probe.rows), TOLERANCE[batched.dtype.name]


def _size_difference(
    candidate: onnx.ModelProto, batches: ProvenBatch, network: OnnxNetwork, probe: Probe
) -> tuple[float, tuple[Tried, ...]]:
    """The largest difference between a graph's cells at other sizes and at the usual size.

    For large images, the usual size is run once, and one image is tried at all sizes but the
    smallest.

    Returns:
        The difference, and the first image of each other size with the graph's rows.

    Raises:
        ModelExportError: The graph fails, its cells differ by more than the tolerance, or its cells
            are too similar to be compared.
    """
    usual = (probe.images.shape[1], probe.images.shape[2])
    opened = _load(candidate, network)
    first = slice(1 if is_large(*usual) else None)
    difference = largest_difference(opened.run_singly(probe.images[first]), probe.rows[first])
    _refuse_beyond(difference, probe, usual)
    before, after = (_load(narrow_windows(model), network) for model in (batches.model, candidate))
    sizes = other_sizes(*usual, probe.strides[-1])
    longest = [max(sides) for sides in zip(usual, *sizes, strict=True)]
    pictures = _pictures(batches.batch or 2, longest[0], longest[1])
    if is_large(*usual) and batches.batch is None:
        _refuse_mixing(opened, pictures, min(sizes, key=math.prod), probe)
        pictures = pictures[:1]
    at_usual = before.run(pictures[:, : usual[0], : usual[1]])
    differences, others = [], []
    for size in sizes:
        rows = _checked_rows(opened, pictures, size, probe)
        others.append(Tried(pictures[:1, : size[0], : size[1]], rows[:1]))
        common = (min(usual[0], size[0]), min(usual[1], size[1]))
        expected = at_usual[:, _within(usual, common, probe)]
        _refuse_alike(expected)
        found = _checked_rows(after, pictures, size, probe)[:, _within(size, common, probe)]
        differences.append(largest_difference(found, expected))
        _refuse_beyond(differences[-1], probe, size)
    return max(differences), tuple(others)


def _refuse_mixing(
    network: OnnxNetwork, pictures: Images, size: tuple[int, int], probe: Probe
) -> None:
    """See that a batch of another size agrees with each of its images alone."""
    cut = pictures[:, : size[0], : size[1]]
    difference = largest_difference(network.run(cut), network.run_singly(cut))
    _refuse_beyond(difference, probe, size)


def _checked_rows(
    network: OnnxNetwork, pictures: Images, size: tuple[int, int], probe: Probe
) -> Rows:
    """Run a network on the top left `size` of pictures.

    Returns:
        (N, A, 5 + C), level by level, row by row.

    Raises:
        ModelExportError: The network fails, or does not give a row of finite values for every cell.
    """
    height, width = size
    rows = network.run(pictures[:, :height, :width])
    check_rows(rows, height, width, probe.num_classes, probe.strides)
    return rows


def _within(size: tuple[int, int], part: tuple[int, int], probe: Probe) -> NDArray[np.bool_]:
    """(A,) bool: the cells at this size that lie within its top left part."""
    grid = anchor_grid(*size, probe.strides)
    ends_xy = (grid.cells_ij + 1) * grid.strides[:, None]
    return np.asarray((ends_xy <= part[::-1]).all(axis=1), np.bool_)


def _refuse_beyond(difference: float, probe: Probe, size: tuple[int, int]) -> None:
    tolerance = TOLERANCE[probe.rows.dtype.name]
    if not difference <= tolerance:
        raise ModelExportError(
            f"at {size[0]}x{size[1]}, cells differ by up to {difference:.1e} "
            f"(allowed {tolerance:.0e})"
        )


def _refuse_alike(rows: Rows) -> None:
    """Refuse rows so similar that they would agree in any order: they would prove nothing."""
    if np.median(_differences(rows[:, 1:], rows[:, :-1]).max(axis=2)) <= TOLERANCE[rows.dtype.name]:
        raise ModelExportError("cells cannot be told apart")


def _differences(found: Rows, expected: Rows) -> NDArray[np.float32]:
    """Absolute differences, relative where the expected value exceeds 1."""
    reference = expected.astype(np.float32, copy=False)
    differences: NDArray[np.float32] = np.abs(found - reference)
    differences /= np.maximum(1, np.abs(reference))
    return differences


def _pictures(count: int, height: int, width: int) -> Images:
    """Squares of random colours, one for each cell of stride 8, with noise added.

    Args:
        count: Number of pictures.
        height: Height in pixels, a multiple of 8.
        width: Width in pixels, a multiple of 8.

    Returns:
        (count, height, width, 3) uint8.
    """
    rng, side = np.random.default_rng(1), STRIDES[0]
    squares = rng.integers(0, 192, (count, height // side, width // side, 3), dtype=np.uint8)
    noise = rng.integers(0, 64, (count, height, width, 3), dtype=np.uint8)
    return squares.repeat(side, axis=1).repeat(side, axis=2) + noise


def _cell_counts(height: int, width: int, strides: tuple[int, ...]) -> set[int]:
    """The number of cells of each level, and of all levels together."""
    levels = [(height // stride) * (width // stride) for stride in strides]
    return {*levels, sum(levels)}


def _load(model: onnx.ModelProto, network: OnnxNetwork) -> OnnxNetwork:
    return load_network(model.SerializeToString(), network.value_range)
