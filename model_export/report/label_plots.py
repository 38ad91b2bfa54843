"""Plots of the objects of the data: how many of each class, how large, and where."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_export.data.annotations import AnnotatedImage
from model_export.report.plots import save_figure

SIZE: Final = (12.0, 4.5)
# Bars of the commonest classes, at most.
MOST_CLASSES: Final = 30
# Cells of the map of places along each axis.
CELLS: Final = 24
# Bins of the histogram of sizes, whose axis is logarithmic.
BINS: Final = 30


def plot_labels(
    train: Sequence[AnnotatedImage],
    val: Sequence[AnnotatedImage],
    class_names: Sequence[str],
    size: tuple[int, int],
    path: Path,
) -> None:
    """Draw the boxes of the data by class, by size and by place.

    Args:
        train: The images to learn from, whose sizes are known.
        val: Those to measure on.
        class_names: Class id to name.
        size: Height and width of the network's input in pixels.
        path: The PNG file.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(SIZE, layout="constrained")
    classes, sizes, places = figure.subplots(1, 3)
    _draw_classes(classes, [_counts(each, len(class_names)) for each in (train, val)], class_names)
    _draw_sizes(sizes, sides(train, size))
    _draw_places(figure, places, train)
    save_figure(figure, path)


def sides(images: Sequence[AnnotatedImage], size: tuple[int, int]) -> NDArray[np.float64]:
    """The square roots of the boxes' areas, (K,), in pixels of a network's input of a size."""
    scaled = [np.zeros(0)]
    for image in images:
        height, width = image.size or size
        ratio = min(size[0] / height, size[1] / width)
        extent = image.boxes_xyxy[:, 2:] - image.boxes_xyxy[:, :2]
        scaled.append(np.sqrt(extent.prod(axis=1, dtype=np.float64)) * ratio)
    return np.concatenate(scaled)


def place_counts(images: Sequence[AnnotatedImage]) -> NDArray[np.float64]:
    """(CELLS, CELLS): how many boxes have their middle in each cell, row 0 at the top."""
    middles = [np.zeros((0, 2))]
    for image in images:
        height, width = image.size or (1, 1)
        boxes = image.boxes_xyxy.astype(np.float64)
        middles.append((boxes[:, :2] + boxes[:, 2:]) / 2 / (width, height))
    x, y = np.concatenate(middles).T
    counts, _, _ = np.histogram2d(y, x, bins=CELLS, range=((0, 1), (0, 1)))
    return np.asarray(counts)


def _counts(images: Sequence[AnnotatedImage], classes: int) -> NDArray[np.int64]:
    ids = np.concatenate([np.zeros(0, np.int64), *(image.class_ids for image in images)])
    return np.bincount(ids, minlength=classes)


def _draw_classes(
    axes: Axes, counts: Sequence[NDArray[np.int64]], class_names: Sequence[str]
) -> None:
    order = np.argsort(-counts[0], kind="stable")[:MOST_CLASSES]
    rows = np.arange(len(order))
    for number, (name, each) in enumerate(zip(("train", "val"), counts, strict=True)):
        bars = axes.barh(rows + 0.4 * number - 0.2, each[order], height=0.4, label=name)
        axes.bar_label(bars, padding=2, fontsize=7)
    axes.set_yticks(rows, [class_names[each] for each in order])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.invert_yaxis()
    more = len(class_names) - len(order)
    axes.set(title="Boxes by class" + (f" (and {more} more)" if more else ""), xlabel="boxes")
    axes.margins(x=0.12)
    axes.legend()


def _draw_sizes(axes: Axes, values: NDArray[np.float64]) -> None:
    edges = np.geomspace(1, max(2.0, float(values.max(initial=2))), BINS)
    axes.hist(np.maximum(values, 1), bins=edges.tolist())
    axes.set_xscale("log")
    for limit, name in ((32, "medium"), (96, "large")):
        if limit < edges[-1]:
            axes.axvline(limit, color="0.5", linestyle=":")
            axes.text(limit, axes.get_ylim()[1] * 0.95, f" {name}", color="0.4", fontsize=8)
    axes.set(title="By size", xlabel="square root of the area, network pixels", ylabel="boxes")


def _draw_places(figure: Figure, axes: Axes, images: Sequence[AnnotatedImage]) -> None:
    drawn = axes.imshow(place_counts(images), extent=(0, 1, 1, 0), cmap="viridis")
    figure.colorbar(drawn, ax=axes, label="boxes")
    axes.set(title="By place of the middle", xlabel="share of the width", ylabel="of the height")
