"""The training loop."""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from model_export.data.examples import TrainingData
from model_export.data.image_files import ImageCache
from model_export.errors import ModelExportError
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.coco import Metrics
from model_export.model.yolox import YOLOX
from model_export.report.events import EpochRecord, RunShape, StepRecord, Watcher
from model_export.samples.batches import BatchPlan
from model_export.training.config import Machine, TrainingConfig
from model_export.training.dataset import TrainingSamples, training_batches
from model_export.training.ema import WeightAverage
from model_export.training.learner import Learner, arithmetic
from model_export.training.meter import Meter
from model_export.training.optimizer import sgd
from model_export.training.parallel import Team
from model_export.training.schedule import Schedule
from model_export.training.snapshot import Progress, Trainee, save_weights
from model_export.training.statistics import refresh_statistics
from model_export.training.stop import StopRequest

# The losses are read once in so many steps; on a GPU, that waits for it.
STEPS_PER_RECORD: Final = 10

Measure = Callable[[nn.Module], Metrics]


@dataclass(frozen=True, slots=True)
class Job:
    """What to train, on what, and where to.

    Attributes:
        config: What the numbers depend on.
        machine: What it runs on.
        data: What to learn from.
        last: The file for the training itself, after every epoch and when it stops.
        best: The file for the averaged weights of the epoch with the highest AP.
        resume: Whether to go on from `last`.
    """

    config: TrainingConfig
    machine: Machine
    data: TrainingData
    last: Path
    best: Path
    resume: bool = False


def train(
    job: Job, model: YOLOX, measure: Measure, watcher: Watcher, team: Team, stop: StopRequest
) -> bool:
    """Train a model to the end, or until asked to stop.

    Args:
        job: What to do.
        model: With its first weights, on the team's device.
        measure: Gives the metrics of a model on the validation data; asked by the leader alone.
        watcher: Sees the training go by.
        team: The processes that take part.
        stop: Looked at after every step.

    Returns:
        Whether the training is whole.

    Raises:
        ModelExportError: A loss is no longer finite, or a file cannot be read or written.
    """
    config = job.config
    # Convolutions on CPUs, and those of mixed precision on GPUs, are faster in this order.
    model.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    average = WeightAverage(model, config.average_decay, config.average_ramp)
    optimizer = sgd(
        model,
        rate=config.rate_per_image,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    dtype = arithmetic(job.machine.precision, team.device)
    scaler = torch.amp.GradScaler(team.device.type, enabled=dtype == torch.float16)
    trainee = Trainee(model, average, optimizer, scaler, progress := Progress())
    if job.resume:
        trainee.restore(job.last)

    preset = replace(PRESETS[config.loss], class_weight=config.class_weight)
    loss = DetectionLoss(preset, config.box_coding, config.center_radius, team.fair_divisor)
    learner = Learner(team.share(model), loss, optimizer, scaler, dtype, config.accumulate)
    plan = _rest(job, team, progress.step)
    schedule = learning_rates(config, plan.epoch_iterations)
    batches = training_batches(
        training_samples(job),
        plan,
        workers=job.machine.workers,
        pin_memory=team.device.type == "cuda",
    )

    watcher.started(RunShape(plan.epochs, plan.epoch_iterations, progress.step, config.batch_size))
    since_record, since_epoch = Meter(team), Meter(team)
    with contextlib.closing(batches):
        for batch in batches:
            epoch, place = divmod(progress.step, plan.epoch_iterations)
            if place == 0:
                watcher.sampled(progress.step, batch.images, batch.targets)
            rate = schedule.rate(progress.step)
            closing = epoch >= plan.epochs - plan.closing_epochs
            losses = learner.step(batch.to(team.device), rate, closing=closing)
            average.update(model)
            progress.step += 1

            for meter in (since_record, since_epoch):
                meter.add(losses)
            epoch_is_over = place + 1 == plan.epoch_iterations
            if epoch_is_over or since_record.steps == STEPS_PER_RECORD:
                watcher.stepped(_step_record(progress.step - 1, rate, since_record, config))
                since_record.restart()
            if epoch_is_over:
                record = _epoch_record(epoch, rate, since_epoch, config)
                metrics = _measured(job, trainee, epoch, measure) if team.leads else None
                # A run that is cut off from here on repeats the epoch, and writes its row anew.
                watcher.epoch_ended(replace(record, metrics=metrics))
                if team.leads:
                    trainee.save(job.last)
                since_record.restart()
                since_epoch.restart()
            if team.any(stop.made):
                break
    if team.leads and progress.step < plan.iterations:
        trainee.save(job.last)
    return progress.step == plan.iterations


def _rest(job: Job, team: Team, step: int) -> BatchPlan:
    """What is to be done from a step on.

    Raises:
        ModelExportError: There are not so many steps, or the processes cannot share the batch.
    """
    plan = batch_plan(job.config, len(job.data), team, start=step)
    if step > plan.iterations:
        raise ModelExportError(
            f"{job.last} is {step} steps far, but these data make {plan.iterations}: "
            "it was begun with others"
        )
    return plan


def batch_plan(config: TrainingConfig, images: int, team: Team, *, start: int = 0) -> BatchPlan:
    """Which samples each step takes, from a step on.

    Raises:
        ModelExportError: The processes cannot share the batch equally.
    """
    return BatchPlan(
        images=images,
        batch_size=config.share_of_batch(team.processes),
        epochs=config.epochs,
        closing_epochs=config.closing_epochs,
        height=config.height,
        width=config.width,
        multiscale_steps=config.augmentation.multiscale_steps,
        seed=config.seed,
        process=team.process,
        processes=team.processes,
        start=start,
    )


def training_samples(job: Job) -> TrainingSamples:
    """The augmented samples of a job."""
    cache = ImageCache(job.machine.cache) if job.machine.cache else None
    return TrainingSamples(job.data.pictures(cache), job.config.augmentation, job.config.seed)


def learning_rates(config: TrainingConfig, epoch_steps: int) -> Schedule:
    """The learning rate of every step."""
    return Schedule(
        peak=config.rate_per_image * config.batch_size,
        total_steps=config.epochs * epoch_steps,
        warmup_steps=round(config.warmup_epochs * epoch_steps),
        closing_steps=config.closing_epochs * epoch_steps,
    )


def _step_record(step: int, rate: float, meter: Meter, config: TrainingConfig) -> StepRecord:
    losses = meter.losses()
    if not math.isfinite(losses.total):
        raise ModelExportError(
            f"the loss is no longer finite at step {step}; a lower learning rate may help, or "
            "float32"
        )
    speed = meter.steps * config.batch_size / meter.seconds()
    return StepRecord(step, rate, losses, speed)


def _epoch_record(epoch: int, rate: float, meter: Meter, config: TrainingConfig) -> EpochRecord:
    losses, seconds = meter.losses(), meter.seconds()
    speed = meter.steps * config.batch_size / seconds
    return EpochRecord(epoch, rate, losses, seconds, speed, metrics=None)


def _measured(job: Job, trainee: Trainee, epoch: int, measure: Measure) -> Metrics | None:
    """Measure the average if it is due, and keep it if it is the best yet."""
    config, progress = job.config, trainee.progress
    ended = epoch + 1
    due = ended % config.evaluate_every == 0 or ended == config.epochs
    metrics = None
    if due:
        candidate = _candidate(job, trainee)
        metrics = measure(candidate)
        ap = metrics.overall["AP"] or 0.0
        if ap > progress.best_ap:
            progress.best_ap, progress.best_epoch = ap, epoch
            save_weights(candidate, job.best)
    return metrics


def _candidate(job: Job, trainee: Trainee) -> nn.Module:
    """The averaged weights, with statistics that are their own."""
    average, config = trainee.average.model, job.config
    if not config.norm_images:
        return average
    candidate = copy.deepcopy(average)
    device = next(candidate.parameters()).device
    refresh_statistics(candidate, sample_batches(job, device, config.norm_images))
    return candidate


def sample_batches(job: Job, device: torch.device, images: int) -> Iterator[Tensor]:
    """The run's first training samples in the usual size, to measure batch norms on.

    Args:
        job: Whose samples.
        device: Where to.
        images: So many at least, in whole batches; fewer if the run has fewer.

    Yields:
        `(batch_size, 3, H, W)` float32, BGR, 0-255.
    """
    config = replace(job.config, augmentation=replace(job.config.augmentation, multiscale_steps=0))
    plan = batch_plan(config, len(job.data), Team(device))
    wanted = -(-images // config.batch_size)
    for batch in itertools.islice(training_batches(training_samples(job), plan), wanted):
        yield batch.images.to(device, torch.float32, memory_format=torch.channels_last)
