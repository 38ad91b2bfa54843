"""The progress of a training, for the person who waits for it."""

import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text
from torch import Tensor

from model_export.measure.coco import Metrics
from model_export.report.events import EpochEnded, LossValues, RunStarted, StepsTaken
from model_export.samples.targets import Targets


class ProgressBar:
    """A watcher that prints a line for each epoch and, on a terminal, a live bar below them.

    Args:
        console: Where to print; if it is no terminal, only the lines are printed.
        clock: Seconds from any origin.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._run = RunStarted(epochs=1, epoch_steps=1, first_step=0, batch_size=1)
        self._began = 0.0
        self._metrics: Metrics | None = None
        self._live: Live | None = None

    def started(self, run: RunStarted) -> None:
        """Start the clock and the bar."""
        self._run, self._began = run, self._clock()
        if run.first_step:
            self._say(_place(run))
        if self._console.is_interactive:
            # Nothing changes between two events, so that no thread has to refresh it.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Samples are not shown."""

    def stepped(self, steps: StepsTaken) -> None:
        """Move the bar."""
        if self._live:
            self._live.update(self._status(steps), refresh=True)

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Print the epoch's line."""
        self._metrics = epoch.metrics or self._metrics
        parts = [
            f"epoch {epoch.number + 1}/{self._run.epochs}",
            _loss_text(epoch.losses),
            _speed_text(epoch.rate, epoch.images_per_second),
            f"ETA {self._time_left((epoch.number + 1) * self._run.epoch_steps)}",
        ]
        if epoch.metrics:
            parts.append(_metrics_text(epoch.metrics))
        self._say("  ".join(parts))
        if epoch.following not in (None, epoch.number + 1):
            self._skip_to(epoch.following or 0)

    def ended(self) -> None:
        """Remove the bar."""
        if self._live:
            self._live.stop()
            self._live = None

    def _skip_to(self, epoch: int) -> None:
        """Say why epochs are left out; the pace is measured anew, so that they do not count."""
        run = self._run
        goes_on = f"goes on with the closing epochs, from epoch {epoch + 1}"
        what = "ends here" if epoch == run.epochs else goes_on
        self._say(f"the AP has not become better for too many epochs (--patience): the run {what}")
        self._run = replace(run, first_step=epoch * run.epoch_steps)
        self._began = self._clock()

    def _say(self, text: str) -> None:
        # On one line, however narrow the console is.
        self._console.print(Text(text), soft_wrap=True)

    def _status(self, taken: StepsTaken) -> Group:
        """The live lines after some steps."""
        steps = self._run.epoch_steps
        epoch, step = divmod(taken.step, steps)
        line = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, 1, None, None):
            line.add_column(ratio=ratio, no_wrap=True)
        line.add_row(
            f"epoch {epoch + 1}/{self._run.epochs}",
            Bar(total=steps, completed=step + 1),
            f"step {step + 1}/{steps}",
            f"ETA {self._time_left(taken.step + 1)}",
        )
        speed = _speed_text(taken.rate, taken.images_per_second)
        last = f"  last {_metrics_text(self._metrics)}" if self._metrics else ""
        return Group(line, Text(_loss_text(taken.losses)), Text(f"{speed}{last}"))

    def _time_left(self, done: int) -> str:
        """The time until the run ends, when `done` of its steps are done; measurements included."""
        total = self._run.epochs * self._run.epoch_steps
        pace = (self._clock() - self._began) / max(done - self._run.first_step, 1)
        minutes, seconds = divmod(round(pace * (total - done)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def _place(run: RunStarted) -> str:
    """Where a run that is resumed goes on."""
    if run.first_step >= run.epochs * run.epoch_steps:
        return f"all {run.epochs} epochs are done; --epochs adds some"
    epoch, step = divmod(run.first_step, run.epoch_steps)
    within = f", with step {step + 1} of {run.epoch_steps}" if step else ""
    return f"goes on in epoch {epoch + 1} of {run.epochs}{within}"


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
