"""metrics.csv: a row for each epoch of a training."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from model_export.errors import ModelExportError
from model_export.files import write_atomically
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.report.events import EpochEnded, LossValues, RunStarted, StepsTaken
from model_export.report.run_folder import LOSS_COLUMNS, writing_to
from model_export.samples.targets import Targets

# Epochs count from 1.
COLUMNS: Final = ("epoch", "rate", *LOSS_COLUMNS, "seconds", "images_per_second")
# The last columns are named after the classes, with these prefixes.
AP_OF: Final = "AP of "
AP50_OF: Final = "AP50 of "


class MetricsCsv:
    """A watcher that keeps the epochs, and writes each to a CSV file when it ends.

    A resumed run takes over the earlier rows, except those of epochs that it repeats.

    Args:
        path: The CSV file.
        class_names: Class id to name.
    """

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path = path
        self._class_names = class_names
        self._epochs: list[EpochEnded] = []

    @property
    def epochs(self) -> Sequence[EpochEnded]:
        """The epochs so far, in order; their metrics lack the curves, which take much memory."""
        return self._epochs

    def started(self, run: RunStarted) -> None:
        """Begin the file with the rows that stay.

        Raises:
            ModelExportError: The file is another run's, or cannot be read or written.
        """
        first = run.first_step // run.epoch_steps
        self._epochs = [epoch for epoch in self._read() if epoch.number < first]
        header = dict(zip(self._columns(), self._columns(), strict=True))
        with writing_to(self._path):
            write_atomically(self._text([header, *map(_row, self._epochs)]).encode(), self._path)

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Samples are not in the file."""

    def stepped(self, steps: StepsTaken) -> None:
        """Steps are not in the file."""

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Add a row.

        Raises:
            ModelExportError: The file cannot be written.
        """
        if epoch.metrics:
            epoch = replace(epoch, metrics=replace(epoch.metrics, precision_by_class={}))
        self._epochs.append(epoch)
        # Closed each time, so that a killed run loses no row.
        with writing_to(self._path), self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([_row(epoch)]))

    def ended(self) -> None:
        """No file is open."""

    def _columns(self) -> list[str]:
        by_class = [metric + name for metric in (AP_OF, AP50_OF) for name in self._class_names]
        return [*COLUMNS, *METRIC_NAMES, *by_class]

    def _text(self, rows: Sequence[Mapping[str, object]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns(), extrasaction="ignore", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()

    def _read(self) -> list[EpochEnded]:
        """The epochs in the file; none if there is no file."""
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
            # A power cut may have left half a row, which lacks cells.
            return [self._epoch(row) for row in rows if None not in row.values()]
        except ValueError as error:
            raise ModelExportError(f"{self._path} is damaged: {error}") from error

    def _epoch(self, row: Mapping[str, str]) -> EpochEnded:
        """The epoch that `_row` made a row of."""
        metrics = Metrics(
            overall={name: _number(row[name]) for name in METRIC_NAMES},
            ap_by_class={name: _number(row[AP_OF + name]) for name in self._class_names},
            ap50_by_class={name: _number(row[AP50_OF + name]) for name in self._class_names},
        )
        return EpochEnded(
            number=int(row["epoch"]) - 1,
            rate=float(row["rate"]),
            losses=LossValues(*(float(row[name]) for name in LOSS_COLUMNS)),
            seconds=float(row["seconds"]),
            images_per_second=float(row["images_per_second"]),
            metrics=metrics if any(row[name] for name in METRIC_NAMES) else None,
        )


def _row(epoch: EpochEnded) -> dict[str, float | None]:
    """An epoch by columns; metrics are absent if it was not measured."""
    row: dict[str, float | None] = {
        "epoch": epoch.number + 1,
        "rate": epoch.rate,
        **dict(zip(LOSS_COLUMNS, astuple(epoch.losses), strict=True)),
        "seconds": epoch.seconds,
        "images_per_second": epoch.images_per_second,
    }
    if epoch.metrics:
        row |= epoch.metrics.overall
        row |= {AP_OF + name: value for name, value in epoch.metrics.ap_by_class.items()}
        row |= {AP50_OF + name: value for name, value in epoch.metrics.ap50_by_class.items()}
    return row


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
