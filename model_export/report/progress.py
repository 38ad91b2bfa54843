"""How far a training is, for the person who waits for it."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from model_export.loss.boxes import Targets
from model_export.measure.coco import Metrics
from model_export.report.events import EpochRecord, LossValues, RunShape, StepRecord


class ProgressBar:
    """A watcher that prints a line for each epoch and, on a terminal, a live bar below them.

    Args:
        console: Where to; elsewhere than on a terminal, the lines are all that is printed.
        clock: Seconds from any origin.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._shape = RunShape(epochs=1, epoch_steps=1, first_step=0, batch_size=1)
        self._began = 0.0
        self._metrics: Metrics | None = None
        self._live: Live | None = None

    def started(self, shape: RunShape) -> None:
        """Start the clock and the bar."""
        self._shape, self._began = shape, self._clock()
        if self._console.is_interactive:
            # Nothing changes between two records, so that no thread need draw.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Samples are for others to show."""

    def stepped(self, record: StepRecord) -> None:
        """Move the bar."""
        if self._live:
            self._live.update(self._status(record), refresh=True)

    def epoch_ended(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        self._metrics = record.metrics or self._metrics
        parts = [
            f"epoch {record.epoch + 1}/{self._shape.epochs}",
            _loss_text(record.losses),
            _speed_text(record.rate, record.images_per_second),
            f"ETA {self._time_left((record.epoch + 1) * self._shape.epoch_steps)}",
        ]
        if record.metrics:
            parts.append(_metrics_text(record.metrics))
        # One line, however narrow the console is.
        self._console.print(Text("  ".join(parts)), soft_wrap=True)

    def ended(self) -> None:
        """Remove the bar."""
        if self._live:
            self._live.stop()
            self._live = None

    def _status(self, record: StepRecord) -> Group:
        """The live lines after a step."""
        steps = self._shape.epoch_steps
        epoch, step = divmod(record.step, steps)
        line = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            line.add_column(ratio=ratio, no_wrap=True)
        line.add_row(
            f"epoch {epoch + 1}/{self._shape.epochs}",
            Bar(total=steps, completed=step + 1),
            f"step {step + 1}/{steps}",
            f"ETA {self._time_left(record.step + 1)}",
        )
        speed = _speed_text(record.rate, record.images_per_second)
        last = f"  last {_metrics_text(self._metrics)}" if self._metrics else ""
        return Group(line, Text(_loss_text(record.losses)), Text(f"{speed}{last}"))

    def _time_left(self, done: int) -> str:
        """Time to the end of the run when so many of its steps are done, with the evaluations."""
        total = self._shape.epochs * self._shape.epoch_steps
        pace = (self._clock() - self._began) / max(done - self._shape.first_step, 1)
        minutes, seconds = divmod(round(pace * (total - done)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def _loss_text(losses: LossValues) -> str:
    return (
        f"loss {losses.total:.3f} (box {losses.box:.3f}, objectness {losses.objectness:.3f}, "
        f"class {losses.classification:.3f}, L1 {losses.l1:.3f})"
    )


def _speed_text(rate: float, images_per_second: float) -> str:
    return f"rate {rate:.2e}  {images_per_second:.1f} images/s"


def _metrics_text(metrics: Metrics) -> str:
    values = {name: metrics.overall[name] for name in ("AP", "AP50")}
    return "  ".join(
        f"{name} {'-' if value is None else format(value, '.4f')}" for name, value in values.items()
    )
