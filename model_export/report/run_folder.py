"""The folder that a training leaves: its configuration, its weights, and how it went."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from model_export.files import write_atomically
from model_export.measure.coco import Metrics
from model_export.measure.matching import confusion
from model_export.measure.thresholds import Thresholds
from model_export.report.events import EpochEnded
from model_export.report.plots import plot_ap, plot_losses, plot_precision_recall
from model_export.report.quality_plots import plot_confidence, plot_confusion
from model_export.report.run_page import RunContent, write_run_page

# The names of the losses in metrics.csv and metrics.json, in the order of `LossValues`.
LOSS_COLUMNS: Final = (
    *("loss", "box_loss", "objectness_loss", "classification_loss", "l1_loss"),
    "positives_per_truth",
)


@dataclass(frozen=True, slots=True)
class Best:
    """The best weights of a run.

    Attributes:
        epoch: The epoch at whose end they were saved, from 0.
        metrics: Their metrics on the validation data.
        thresholds: The options that they detect best with, if that was measured.
        class_names: Class id to name.
        sheets: Title to picture, (h, w, 3) uint8 BGR: what the page shows of the training data.
    """

    epoch: int
    metrics: Metrics
    thresholds: Thresholds | None = None
    class_names: Sequence[str] = ()
    sheets: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run.

    Attributes:
        path: The folder, which need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration, as JSON."""
        return self.path / "config.json"

    @property
    def data(self) -> Path:
        """The names and hashes of the images and boxes, as JSON."""
        return self.path / "data.json"

    @property
    def metrics_csv(self) -> Path:
        """A row for each epoch, written when it ends."""
        return self.path / "metrics.csv"

    @property
    def metrics_json(self) -> Path:
        """The metrics of the best weights and of all epochs, written at the end."""
        return self.path / "metrics.json"

    @property
    def best(self) -> Path:
        """The best weights."""
        return self.path / "best.pth"

    @property
    def last(self) -> Path:
        """The state of the training, to continue from."""
        return self.path / "last.pth"

    @property
    def model(self) -> Path:
        """The best weights, exported."""
        return self.path / "model.onnx"

    @property
    def labels(self) -> Path:
        """A plot of the objects of the data, by class, size and place."""
        return self.path / "labels.png"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    def check_free(self) -> None:
        """Refuse a folder that has a run in it.

        Raises:
            ModelExportError: There is a run in it.
        """
        if any(path.exists() for path in (self.config, self.last, self.best, self.metrics_csv)):
            way = "--resume continues it"
            if not self.last.exists():
                way = "it has nothing to resume yet; remove it if that run has ended"
            raise ModelExportError(
                f"{self.path} holds a run already: {way}, or choose another --output"
            )

    def create(self, config: str, data: str | None = None) -> None:
        """Make the folder for a new run, and write its configuration.

        Args:
            config: The configuration, a JSON object.
            data: The identity of the data, a JSON object (default: it is not known).

        Raises:
            ModelExportError: There is a run in it, or it cannot be written.
        """
        self.check_free()
        if data is not None:
            with writing_to(self.path):
                write_atomically(data.encode(), self.data)
        self.write_config(config)

    def write_config(self, config: str) -> None:
        """Write the configuration, a JSON object.

        Raises:
            ModelExportError: It cannot be written.
        """
        with writing_to(self.path):
            write_atomically(f"{config}\n".encode(), self.config)

    def read_data(self) -> str | None:
        """The identity of the data; None for a run of an earlier release.

        Raises:
            ModelExportError: It cannot be read.
        """
        try:
            return self.data.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ModelExportError(f"cannot read {self.data}: {error}") from error

    def read_config(self) -> str:
        """The configuration that `create` was given, to continue the run.

        Raises:
            ModelExportError: There is no run in the folder, or it cannot be read.
        """
        try:
            return self.config.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ModelExportError(f"{self.path} holds no run to continue") from error
        except (OSError, ValueError) as error:
            raise ModelExportError(f"cannot read {self.config}: {error}") from error

    def finish(
        self,
        epochs: Sequence[EpochEnded],
        best: Best | None,
        closing_from: int | None = None,
    ) -> None:
        """Write metrics.json and the plots, except plots with nothing to show; `show` is the page.

        Args:
            epochs: All epochs of the run, as `MetricsCsv` keeps them.
            best: None if nothing was measured.
            closing_from: The first closing epoch, from 0.

        Raises:
            ModelExportError: A file cannot be written.
        """
        with writing_to(self.path):
            write_atomically(_summary(epochs, best).encode(), self.metrics_json)
            if epochs:
                plot_losses(epochs, self.path / "losses.png", closing_from=closing_from)
            if best:
                plot_ap(epochs, self.path / "ap.png")
                plot_precision_recall(best.metrics, self.path / "pr.png")
                self._plot_quality(best)

    def show(self, best: Best, speed: str = "") -> None:
        """Write the page of the run, with the plots that `finish` wrote.

        Args:
            best: The best weights, with their thresholds.
            speed: The speed of the exported model in a sentence; none if it is empty.

        Raises:
            ModelExportError: A file cannot be written.
        """
        if best.thresholds is None:
            return
        content = RunContent(best.metrics, best.thresholds, best.class_names, best.sheets, speed)
        with writing_to(self.path):
            write_run_page(self.path / "report.html", content)

    def _plot_quality(self, best: Best) -> None:
        """Draw what the best options find."""
        thresholds, names = best.thresholds, best.class_names
        if thresholds is None:
            return
        counts = confusion(thresholds.found, thresholds.images, len(names))
        plot_confidence(thresholds, self.path / "confidence.png")
        plot_confusion(counts, names, self.path / "confusion.png")


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a failure to write to a file or folder into a clear error.

    Raises:
        ModelExportError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error.strerror or error}") from error


def _summary(epochs: Sequence[EpochEnded], best: Best | None) -> str:
    """The content of metrics.json."""
    content = {
        "best": best and {"epoch": best.epoch + 1, **best.metrics.numbers()},
        "thresholds": _advice(best.thresholds) if best and best.thresholds else None,
        "epochs": [_entry(epoch) for epoch in epochs],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _advice(thresholds: Thresholds) -> Mapping[str, object]:
    return {
        "recommended": asdict(thresholds.recommended()),
        "images": len(thresholds.images),
        "overall": asdict(thresholds.overall),
        "by_class": {name: asdict(each) for name, each in thresholds.by_class.items()},
        "f1_of_options": dict(thresholds.tried),
    }


def _entry(epoch: EpochEnded) -> Mapping[str, object]:
    losses = zip(LOSS_COLUMNS, astuple(epoch.losses), strict=True)
    return {
        "epoch": epoch.number + 1,
        "rate": epoch.rate,
        # A loss may become infinite or NaN, which JSON cannot express.
        **{name: value if math.isfinite(value) else None for name, value in losses},
        "seconds": epoch.seconds,
        "images_per_second": epoch.images_per_second,
        "metrics": epoch.metrics and epoch.metrics.numbers(),
    }
