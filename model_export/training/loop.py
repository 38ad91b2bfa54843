"""The training loop: all steps of a run, and a measurement after each epoch."""

import contextlib
import copy
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import nn

from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.coco import Metrics
from model_export.model.batch_norm_statistics import refresh_statistics
from model_export.model.yolox import YOLOX
from model_export.report.events import EpochEnded, RunStarted, StepsTaken, Watcher
from model_export.samples.batch_plan import BatchPlan
from model_export.samples.loader import Batch, training_batches
from model_export.training.job import Job
from model_export.training.loss_meter import LossMeter, Reading
from model_export.training.parallel import Team
from model_export.training.signals import StopRequest
from model_export.training.state import TrainingState, save_weights
from model_export.training.step import TrainingStep, WeightAverage, arithmetic, sgd

# The losses are read once in this many steps: reading them waits for the GPU.
STEPS_PER_READING: Final = 10
# A later kind of batch norm statistics has to gain this much AP on the validation data, because
# smaller gains are mostly chance, and are lost on other data.
CLEARLY_BETTER: Final = 0.002

Measure = Callable[[nn.Module], Metrics]


def train(
    job: Job, model: YOLOX, measure: Measure, watcher: Watcher, team: Team, stop: StopRequest
) -> bool:
    """Train a model to the end, or until a stop is requested.

    Args:
        job: The configuration, the data and the files.
        model: With its first weights, on the team's device.
        measure: Gives a model's metrics on the validation data; only the leader calls it.
        watcher: Receives the events of the training.
        team: The processes that take part.
        stop: Looked at after every step.

    Returns:
        Whether the training is complete.

    Raises:
        ModelExportError: A loss is no longer finite, or a file cannot be read or written.
    """
    dtype = arithmetic(job.machine.precision, team.device)
    state = _first_state(job, model, team, dtype)
    course = _Course(
        job=job,
        state=state,
        take_step=_training_step(job, state, team, dtype),
        measure=measure,
        watcher=watcher,
        team=team,
        stop=stop,
    )
    return course.run()


@dataclass(frozen=True, slots=True)
class _Course:
    """The steps of a run from the state's on, in one process of the team."""

    job: Job
    state: TrainingState
    take_step: TrainingStep
    measure: Measure
    watcher: Watcher
    team: Team
    stop: StopRequest

    def run(self) -> bool:
        """Go on to the end, or until a stop is requested; returns whether it is the end."""
        state, team = self.state, self.team
        plan = self.job.plan(team, start=state.step)
        batch_size = self.job.config.batch_size
        self.watcher.started(RunStarted(plan.epochs, plan.epoch_steps, state.step, batch_size))
        stopped = False
        while state.step < plan.steps and not stopped:
            # Another plan each time: a run whose patience is over leaves epochs out.
            plan = self.job.plan(team, start=state.step)
            stopped = self._follow(plan)
        if team.leads and state.step < plan.steps:
            state.save(self.job.last, self.job.about({}))
        return state.step == plan.steps

    def _follow(self, plan: BatchPlan) -> bool:
        """Take the steps of a plan; returns whether a stop was requested.

        It ends early, too, where the run leaves epochs out.
        """
        job, state, team = self.job, self.state, self.team
        schedule = job.learning_rates(plan.epoch_steps)
        since_reading, since_epoch = LossMeter(team), LossMeter(team, state.begun_epoch)
        state.begun_epoch = Reading()
        with contextlib.closing(self._batches(plan)) as batches:
            for batch in batches:
                epoch, place = divmod(state.step, plan.epoch_steps)
                if place == 0:
                    self.watcher.sampled(state.step, batch.images, batch.targets)
                rate = schedule.rate(state.step)
                losses = self.take_step(batch.to(team.device), rate, closing=plan.is_closing(epoch))
                state.average.update()
                state.step += 1

                for meter in (since_reading, since_epoch):
                    meter.add(losses)
                epoch_is_over = place + 1 == plan.epoch_steps
                if epoch_is_over or since_reading.steps == STEPS_PER_READING:
                    self._tell_steps(rate, since_reading)
                skips = epoch_is_over and self._end_epoch(epoch, rate, since_epoch)
                if team.any(self.stop.made):
                    state.begun_epoch = since_epoch.reading()
                    return True
                if skips:
                    break
                if epoch_is_over:
                    since_reading.restart()
        return False

    def _batches(self, plan: BatchPlan) -> Generator[Batch, None, None]:
        return training_batches(
            self.job.samples(),
            plan,
            workers=self.job.machine.workers,
            in_step=self.team.device.type == "cpu",
            pin_memory=self.team.device.type == "cuda",
        )

    def _tell_steps(self, rate: float, meter: LossMeter) -> None:
        batch_size = self.job.config.batch_size
        self.watcher.stepped(_steps_taken(self.state.step - 1, rate, meter, batch_size))
        meter.restart()

    def _end_epoch(self, epoch: int, rate: float, meter: LossMeter) -> bool:
        """Measure, report and save; returns whether epochs are left out now."""
        job, state, team = self.job, self.state, self.team
        ended = _epoch_ended(epoch, rate, meter, job.config.batch_size)
        metrics = _measured(job, state, epoch, self.measure) if team.leads else None
        # Only the leader knows the best epoch.
        skips = team.any(metrics is not None and job.patience_is_over(epoch, state.best_epoch))
        following = job.epoch_after_patience(epoch) if skips else epoch + 1
        # A run that is cut off between these two repeats the epoch when it is resumed, and
        # the watcher then receives the event again.
        self.watcher.epoch_ended(replace(ended, metrics=metrics, following=following))
        state.step = state.step // (epoch + 1) * following
        if team.leads:
            state.save(job.last, job.about({}))
        meter.restart()
        return skips


def _first_state(job: Job, model: YOLOX, team: Team, dtype: torch.dtype) -> TrainingState:
    """The state before the first step, or the one that is resumed."""
    config = job.config
    # Convolutions are faster with channels last: on CPUs, and in mixed precision on GPUs.
    model.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    average = WeightAverage(model, config.average_decay, config.average_ramp)
    optimizer = sgd(
        model,
        rate=config.rate_per_image,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=team.device.type == "cpu" and dtype != torch.float16,
    )
    scaler = torch.amp.GradScaler(team.device.type, enabled=dtype == torch.float16)
    state = TrainingState(model, average, optimizer, scaler)
    if job.resume:
        state.restore(job.last)
    return state


def _training_step(job: Job, state: TrainingState, team: Team, dtype: torch.dtype) -> TrainingStep:
    config = job.config
    preset = replace(PRESETS[config.loss], class_weight=config.class_weight)
    weights = job.class_weights()
    loss = DetectionLoss(
        preset,
        config.box_coding,
        config.center_radius,
        team.fair_divisor,
        None if weights is None else torch.from_numpy(weights).to(team.device),
    )
    network = team.share(state.model)
    return TrainingStep(network, loss, state.optimizer, state.scaler, dtype, config.accumulate)


def _steps_taken(step: int, rate: float, meter: LossMeter, batch_size: int) -> StepsTaken:
    losses = meter.losses()
    if not math.isfinite(losses.total):
        raise ModelExportError(
            f"the loss is no longer finite at step {step}; a lower learning rate may help, or "
            "float32"
        )
    return StepsTaken(step, rate, losses, meter.steps * batch_size / meter.seconds())


def _epoch_ended(epoch: int, rate: float, meter: LossMeter, batch_size: int) -> EpochEnded:
    losses, seconds = meter.losses(), meter.seconds()
    speed = meter.steps * batch_size / seconds
    return EpochEnded(epoch, rate, losses, seconds, speed, metrics=None, following=epoch + 1)


def _measured(job: Job, state: TrainingState, epoch: int, measure: Measure) -> Metrics | None:
    """Measure the average if it is due, and save it if it is the best so far."""
    config, ended = job.config, epoch + 1
    if ended % config.evaluate_every and ended != config.epochs:
        return None
    closing = epoch >= config.first_closing
    measured = [(each, measure(each)) for each in _candidates(job, state, closing=closing)]
    candidate, metrics = measured[0]
    for other in measured[1:]:
        if _ap(other[1]) > _ap(metrics) + CLEARLY_BETTER:
            candidate, metrics = other
    if _ap(metrics) > state.best_ap:
        state.best_ap, state.best_epoch = _ap(metrics), epoch
        save_weights(candidate, job.best, job.about(metrics.overall))
    return metrics


def _ap(metrics: Metrics) -> float:
    return metrics.overall["AP"] or 0.0


def _candidates(job: Job, state: TrainingState, *, closing: bool) -> Iterator[nn.Module]:
    """The averaged weights with each kind of batch norm statistics that may be the best one.

    Before the closing epochs these are the statistics of the run's first samples, which are of the
    kind that the weights have learnt from. In the closing epochs, those of plain samples and the
    averaged ones may be better, as served images are plain, too; the measurements decide, and
    prefer the first kind.
    """
    average, images = state.average.model, job.config.norm_images
    if images:
        # Where all epochs are closing ones, the run's first samples are plain.
        kinds = {False, closing} if job.config.first_closing else {closing}
        for plain in sorted(kinds):
            candidate = copy.deepcopy(average)
            device = next(candidate.parameters()).device
            refresh_statistics(candidate, job.first_batches(images, device, closing=plain))
            yield candidate
    if closing or not images:
        yield average
