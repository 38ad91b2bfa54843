"""Plots of what a model finds at the confidence that measured best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_export.measure.thresholds import Thresholds
from model_export.report.plots import SIZE, save_figure

# In larger matrices, numbers and names would overlap.
MOST_NAMED: Final = 20


def plot_confidence(thresholds: Thresholds, path: Path) -> None:
    """Draw F1, precision and recall over the confidence, and mark the best F1.

    Raises:
        OSError: The file cannot be written.
    """
    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots()
    confidences = [each.confidence for each in thresholds.curve]
    axes.plot(confidences, [each.f1 for each in thresholds.curve], "k", linewidth=2.5, label="F1")
    axes.plot(confidences, [each.precision for each in thresholds.curve], label="precision")
    axes.plot(confidences, [each.recall for each in thresholds.curve], label="recall")
    best = thresholds.overall
    label = f"best: F1 {best.f1:.3f} at {best.confidence:.2f}"
    axes.axvline(best.confidence, color="0.5", linestyle=":", label=label)
    axes.set(xlabel=f"confidence ({thresholds.options.score_by})", ylabel="share, 0 to 1")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), title="All classes at IoU 0.50, validation data")
    axes.legend(loc="lower center")
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_confusion(counts: NDArray[np.int64], class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix; each colour is a share of its row, and numbers count boxes.

    Args:
        counts: (C + 1, C + 1), as `model_export.measure.matching.confusion` returns it.
        class_names: Class id to name.
        path: The PNG file.

    Raises:
        OSError: The file cannot be written.
    """
    side = min(16.0, max(5.0, 2.5 + 0.6 * len(class_names)))
    figure = Figure((side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    if len(class_names) <= MOST_NAMED:
        _name_cells(figure, counts, shares, class_names)
    axes.set(xlabel="found", ylabel="true", title="True and found classes at IoU 0.50")
    save_figure(figure, path)


def _name_cells(
    figure: Figure,
    counts: NDArray[np.int64],
    shares: NDArray[np.float64],
    class_names: Sequence[str],
) -> None:
    axes, places = figure.axes[0], range(len(counts))
    axes.set_xticks(places, [*class_names, "missed"], rotation=45, ha="right")
    axes.set_yticks(places, [*class_names, "ghost"])
    # A class name may contain signs that matplotlib would parse as a formula.
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_parse_math(False)
    for row, column in np.argwhere(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
