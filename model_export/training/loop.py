"""The training loop: all steps of a run, and a measurement after each epoch."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import torch
from torch import nn

from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.coco import Metrics
from model_export.model.batch_norm_statistics import refresh_statistics
from model_export.model.yolox import YOLOX
from model_export.report.events import EpochEnded, RunStarted, StepsTaken, Watcher
from model_export.samples.loader import training_batches
from model_export.training.job import Job
from model_export.training.loss_meter import LossMeter
from model_export.training.parallel import Team
from model_export.training.signals import StopRequest
from model_export.training.state import TrainingState, save_weights
from model_export.training.step import TrainingStep, WeightAverage, arithmetic, sgd

# The losses are read once in this many steps: reading them waits for the GPU.
STEPS_PER_READING: Final = 10

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
    config = job.config
    dtype = arithmetic(job.machine.precision, team.device)
    state = _first_state(job, model, team, dtype)
    take_step = _training_step(job, state, team, dtype)
    plan = job.plan(team, start=state.step)
    schedule = job.learning_rates(plan.epoch_steps)
    batches = training_batches(
        job.samples(),
        plan,
        workers=job.machine.workers,
        pin_memory=team.device.type == "cuda",
    )

    watcher.started(RunStarted(plan.epochs, plan.epoch_steps, state.step, config.batch_size))
    since_reading, since_epoch = LossMeter(team), LossMeter(team)
    with contextlib.closing(batches):
        for batch in batches:
            epoch, place = divmod(state.step, plan.epoch_steps)
            if place == 0:
                watcher.sampled(state.step, batch.images, batch.targets)
            rate = schedule.rate(state.step)
            losses = take_step(batch.to(team.device), rate, closing=plan.is_closing(epoch))
            state.average.update(model)
            state.step += 1

            for meter in (since_reading, since_epoch):
                meter.add(losses)
            epoch_is_over = place + 1 == plan.epoch_steps
            if epoch_is_over or since_reading.steps == STEPS_PER_READING:
                watcher.stepped(
                    _steps_taken(state.step - 1, rate, since_reading, config.batch_size)
                )
                since_reading.restart()
            if epoch_is_over:
                ended = _epoch_ended(epoch, rate, since_epoch, config.batch_size)
                metrics = _measured(job, state, epoch, measure) if team.leads else None
                # A run that is cut off between these two repeats the epoch when it is resumed, and
                # the watcher then receives the event again.
                watcher.epoch_ended(replace(ended, metrics=metrics))
                if team.leads:
                    state.save(job.last, job.about({}))
                since_reading.restart()
                since_epoch.restart()
            if team.any(stop.made):
                break
    if team.leads and state.step < plan.steps:
        state.save(job.last, job.about({}))
    return state.step == plan.steps


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
    )
    scaler = torch.amp.GradScaler(team.device.type, enabled=dtype == torch.float16)
    state = TrainingState(model, average, optimizer, scaler)
    if job.resume:
        state.restore(job.last)
    return state


def _training_step(job: Job, state: TrainingState, team: Team, dtype: torch.dtype) -> TrainingStep:
    config = job.config
    preset = replace(PRESETS[config.loss], class_weight=config.class_weight)
    loss = DetectionLoss(preset, config.box_coding, config.center_radius, team.fair_divisor)
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
    return EpochEnded(epoch, rate, losses, seconds, speed, metrics=None)


def _measured(job: Job, state: TrainingState, epoch: int, measure: Measure) -> Metrics | None:
    """Measure the average if it is due, and save it if it is the best so far."""
    config, ended = job.config, epoch + 1
    if ended % config.evaluate_every and ended != config.epochs:
        return None
    closing = ended > config.epochs - config.closing_epochs
    measured = [(each, measure(each)) for each in _candidates(job, state, closing=closing)]
    candidate, metrics = max(measured, key=lambda pair: _ap(pair[1]))
    if _ap(metrics) > state.best_ap:
        state.best_ap, state.best_epoch = _ap(metrics), epoch
        save_weights(candidate, job.best, job.about(metrics.overall))
    return metrics


def _ap(metrics: Metrics) -> float:
    return metrics.overall["AP"] or 0.0


def _candidates(job: Job, state: TrainingState, *, closing: bool) -> Iterator[nn.Module]:
    """The averaged weights with batch norm statistics measured on samples, or averaged, or each.

    Samples that training shows now: the server's images look like those of the closing epochs. Only
    these bring the averaged statistics near them, too, if there are enough of them.
    """
    average, images = state.average.model, job.config.norm_images
    if images:
        candidate = copy.deepcopy(average)
        device = next(candidate.parameters()).device
        refresh_statistics(candidate, job.first_batches(images, device, closing=closing))
        yield candidate
    if closing or not images:
        yield average
