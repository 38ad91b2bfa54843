"""Plots of a training, as PNG files."""

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_export.files import write_atomically
from model_export.measure.coco import RECALLS, Metrics
from model_export.report.events import EpochEnded, LossValues

# Inches and dots per inch: 1200 x 750 pixels.
SIZE: Final = (8.0, 5.0)
DPI: Final = 150
# More classes than this share one colour, without names: nobody could tell the colours apart.
MAX_COLORS: Final = 10

LOSSES: Final[Mapping[str, Callable[[LossValues], float]]] = {
    "total": lambda losses: losses.total,
    "box": lambda losses: losses.box,
    "objectness": lambda losses: losses.objectness,
    "classification": lambda losses: losses.classification,
    "L1": lambda losses: losses.l1,
}


def plot_losses(
    epochs: Sequence[EpochEnded], path: Path, *, closing_from: int | None = None
) -> None:
    """Draw the losses, and the learning rate below them, over the epochs.

    Args:
        epochs: The epochs.
        path: The PNG file.
        closing_from: The first closing epoch, from 0, to mark the closing ones.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(SIZE, layout="constrained")
    losses, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    numbers = [epoch.number + 1 for epoch in epochs]
    for name, value in LOSSES.items():
        _line(losses, numbers, [value(epoch.losses) for epoch in epochs], name)
    losses.set(title="Losses", ylabel="loss, mean of the epoch")
    losses.set_ylim(bottom=0)
    if closing_from is not None and numbers and closing_from < numbers[-1]:
        losses.axvspan(closing_from + 0.5, numbers[-1] + 0.5, alpha=0.1, label="closing epochs")
    losses.legend()
    _line(rate, numbers, [epoch.rate for epoch in epochs], "rate")
    rate.set(ylabel="learning rate")
    rate.set_ylim(bottom=0)
    _over_epochs(rate)
    save_figure(figure, path)


def plot_ap(epochs: Sequence[EpochEnded], path: Path) -> None:
    """Draw AP, AP50 and AP75 over the epochs that were measured, and mark the best AP.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots()
    for name in ("AP50", "AP75", "AP"):
        _line(axes, *_measured(epochs, name), label=name)
    numbers, values = _measured(epochs, "AP")
    if values:
        best = int(np.argmax(values))
        label = f"best: AP {values[best]:.3f}, epoch {numbers[best]}"
        axes.plot(numbers[best], values[best], "k*", markersize=12, label=label)
    axes.set(title="Average precision on the validation data", ylabel="AP, 0 to 1", ylim=(0, 1))
    axes.legend(loc="lower right")
    _over_epochs(axes)
    save_figure(figure, path)


def plot_precision_recall(metrics: Metrics, path: Path) -> None:
    """Draw each annotated class's precision over recall at IoU 0.50, and the mean of them.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots()
    curves = metrics.precision_by_class
    few = len(curves) <= MAX_COLORS
    for name, precision in curves.items():
        label = f"{_ap50(metrics.ap50_by_class[name])}  {name}"
        style = {"label": label} if few else {"color": "0.8", "linewidth": 0.8}
        axes.plot(RECALLS, precision, **style)
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        label = f"{_ap50(metrics.overall.get('AP50'))}  mean of {len(curves)} classes"
        axes.plot(RECALLS, mean, "k", linewidth=2.5, label=label)
        # A class name may contain signs that matplotlib would parse as a formula.
        for text in axes.legend(title="AP50", loc="lower left").get_texts():
            text.set_parse_math(False)
    axes.set(xlabel="recall, 0 to 1", ylabel="precision, 0 to 1", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Precision and recall at IoU 0.50")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def _line(axes: Axes, numbers: Sequence[int], values: Sequence[float], label: str) -> None:
    # A line through a single point would be invisible.
    marker = "o" if len(numbers) == 1 else ""
    axes.plot(numbers, values, label=label, marker=marker)


def _over_epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    for each in axes.figure.axes:
        each.grid(alpha=0.3)


def _measured(epochs: Sequence[EpochEnded], name: str) -> tuple[list[int], list[float]]:
    """The epochs, from 1, that have a metric, and the metric's values."""
    found = [(epoch.number + 1, epoch.metrics.overall[name]) for epoch in epochs if epoch.metrics]
    known = [(number, value) for number, value in found if value is not None]
    return [number for number, _ in known], [value for _, value in known]


def _ap50(value: float | None) -> str:
    return f"{math.nan if value is None else value:.3f}"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        OSError: The file cannot be written.
    """
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A class name may be in a script that the font lacks, and is then drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, format="png", dpi=DPI)
    write_atomically(content.getvalue(), path)
