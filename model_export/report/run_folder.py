"""The folder that a training leaves: what was asked, what was learnt, and how it went."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from model_export.errors import ModelExportError
from model_export.files import write_atomically
from model_export.loss.boxes import Targets
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.report.events import EpochRecord, LossValues, RunShape, StepRecord
from model_export.report.plots import plot_ap, plot_losses, plot_precision_recall

# The first columns of metrics.csv; the losses in the order of `LossValues`. Epochs count from 1.
LOSS_COLUMNS: Final = (
    *("loss", "box_loss", "objectness_loss", "classification_loss", "l1_loss"),
    "positives_per_truth",
)
COLUMNS: Final = ("epoch", "rate", *LOSS_COLUMNS, "seconds", "images_per_second")
# What stands before the name of a class in the last ones.
AP_OF: Final = "AP of "
AP50_OF: Final = "AP50 of "


@dataclass(frozen=True, slots=True)
class Best:
    """The weights that a run is kept for.

    Attributes:
        epoch: After which they were taken, from 0.
        metrics: Of them, on the validation data.
    """

    epoch: int
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where the files of a run lie.

    Attributes:
        path: The folder, which need not exist yet.
    """

    path: Path

    @property
    def config(self) -> Path:
        """What was asked, as JSON."""
        return self.path / "config.json"

    @property
    def metrics_csv(self) -> Path:
        """A row for each epoch, while the run goes on."""
        return self.path / "metrics.csv"

    @property
    def metrics_json(self) -> Path:
        """The metrics of the best weights, and all epochs."""
        return self.path / "metrics.json"

    @property
    def best(self) -> Path:
        """The best weights."""
        return self.path / "best.pth"

    @property
    def last(self) -> Path:
        """The state to continue from."""
        return self.path / "last.pth"

    @property
    def model(self) -> Path:
        """The best weights, exported."""
        return self.path / "model.onnx"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    def check_free(self) -> None:
        """Refuse a folder that has a run in it.

        Raises:
            ModelExportError: It has.
        """
        if any(path.exists() for path in (self.config, self.last, self.best, self.metrics_csv)):
            way = "--resume continues it"
            if not self.last.exists():
                way = "it has nothing to resume yet; remove it if that run has ended"
            raise ModelExportError(
                f"{self.path} holds a run already: {way}, or choose another --output"
            )

    def create(self, config: str) -> None:
        """Make the folder for a new run, and write what is asked of it.

        Args:
            config: A JSON object.

        Raises:
            ModelExportError: There is a run in it, or it cannot be written.
        """
        self.check_free()
        with writing(self.path):
            write_atomically(f"{config}\n".encode(), self.config)

    def read_config(self) -> str:
        """What `create` was given, for a run that is to be continued.

        Raises:
            ModelExportError: There is no run in the folder, or it cannot be read.
        """
        try:
            return self.config.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ModelExportError(f"{self.path} holds no run to continue") from error
        except (OSError, ValueError) as error:
            raise ModelExportError(f"cannot read {self.config}: {error}") from error

    def finish(self, epochs: Sequence[EpochRecord], best: Best | None) -> None:
        """Write metrics.json and the plots; plots that have nothing to show are left out.

        Args:
            epochs: All of the run, as `Ledger` has them.
            best: None if nothing was measured.

        Raises:
            ModelExportError: A file cannot be written.
        """
        with writing(self.path):
            write_atomically(_summary(epochs, best).encode(), self.metrics_json)
            if epochs:
                plot_losses(epochs, self.path / "losses.png")
            if best:
                plot_ap(epochs, self.path / "ap.png")
                plot_precision_recall(best.metrics, self.path / "pr.png")


class Ledger:
    """A watcher that keeps the epochs, also in a CSV file as they come.

    A resumed run takes over the earlier rows, less those of epochs that it repeats.

    Args:
        path: The CSV file.
        class_names: Class id to name.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path = path
        self._class_names = class_names
        self._epochs: list[EpochRecord] = []

    @property
    def epochs(self) -> Sequence[EpochRecord]:
        """The epochs so far, in order; their metrics lack the curves, which are large."""
        return self._epochs

    def started(self, shape: RunShape) -> None:
        """Begin the file, with the rows that stay.

        Raises:
            ModelExportError: It is of another run, or cannot be read or written.
        """
        first = shape.first_step // shape.epoch_steps
        self._epochs = [record for record in self._read() if record.epoch < first]
        header = dict(zip(self._columns(), self._columns(), strict=True))
        with writing(self._path):
            write_atomically(self._text([header, *map(_row, self._epochs)]).encode(), self._path)

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Samples are for others to show."""

    def stepped(self, record: StepRecord) -> None:
        """Steps are for others to show."""

    def epoch_ended(self, record: EpochRecord) -> None:
        """Add a row.

        Raises:
            ModelExportError: The file cannot be written.
        """
        if record.metrics:
            record = replace(record, metrics=replace(record.metrics, precision_by_class={}))
        self._epochs.append(record)
        # Closed each time: a killed run has lost nothing.
        with writing(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([_row(record)]))

    def ended(self) -> None:
        """Nothing is open."""

    def _columns(self) -> list[str]:
        by_class = [metric + name for metric in (AP_OF, AP50_OF) for name in self._class_names]
        return [*COLUMNS, *METRIC_NAMES, *by_class]

    def _text(self, rows: Sequence[Mapping[str, object]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns(), extrasaction="ignore", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()

    def _read(self) -> list[EpochRecord]:
        """The epochs of the file, if there is one."""
        try:
            with self._path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                rows, columns = list(reader), reader.fieldnames
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error) as error:
            raise ModelExportError(f"cannot read {self._path}: {error}") from error
        if columns != self._columns():
            raise ModelExportError(
                f"{self._path} has other columns than this run: it is of another one; move it away"
            )
        try:
            # A machine that went down may have left half a row, which lacks cells.
            return [self._record(row) for row in rows if None not in row.values()]
        except ValueError as error:
            raise ModelExportError(f"{self._path} is damaged: {error}") from error

    def _record(self, row: Mapping[str, str]) -> EpochRecord:
        """What `_row` made a row of."""
        metrics = Metrics(
            overall={name: _number(row[name]) for name in METRIC_NAMES},
            ap_by_class={name: _number(row[AP_OF + name]) for name in self._class_names},
            ap50_by_class={name: _number(row[AP50_OF + name]) for name in self._class_names},
        )
        return EpochRecord(
            epoch=int(row["epoch"]) - 1,
            rate=float(row["rate"]),
            losses=LossValues(*(float(row[name]) for name in LOSS_COLUMNS)),
            seconds=float(row["seconds"]),
            images_per_second=float(row["images_per_second"]),
            metrics=metrics if any(row[name] for name in METRIC_NAMES) else None,
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write a file, or into a folder, into a clear error.

    Raises:
        ModelExportError: Instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise ModelExportError(f"cannot write {path}: {error.strerror or error}") from error


def _row(record: EpochRecord) -> dict[str, float | None]:
    """A record by columns; those of metrics are absent where nothing was measured."""
    row: dict[str, float | None] = {
        "epoch": record.epoch + 1,
        "rate": record.rate,
        **dict(zip(LOSS_COLUMNS, astuple(record.losses), strict=True)),
        "seconds": record.seconds,
        "images_per_second": record.images_per_second,
    }
    if record.metrics:
        row |= record.metrics.overall
        row |= {AP_OF + name: value for name, value in record.metrics.ap_by_class.items()}
        row |= {AP50_OF + name: value for name, value in record.metrics.ap50_by_class.items()}
    return row


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _summary(epochs: Sequence[EpochRecord], best: Best | None) -> str:
    """The content of metrics.json."""
    content = {
        "best": best and {"epoch": best.epoch + 1, **best.metrics.numbers()},
        "epochs": [_entry(record) for record in epochs],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _entry(record: EpochRecord) -> Mapping[str, object]:
    losses = zip(LOSS_COLUMNS, astuple(record.losses), strict=True)
    return {
        "epoch": record.epoch + 1,
        "rate": record.rate,
        # JSON has no word for what a loss may become.
        **{name: value if math.isfinite(value) else None for name, value in losses},
        "seconds": record.seconds,
        "images_per_second": record.images_per_second,
        "metrics": record.metrics and record.metrics.numbers(),
    }
