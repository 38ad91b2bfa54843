"""`yolox-serve train`: a data set to a trained and exported model."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import (
    AbsolutePath,
    Natural,
    Network,
    Positive,
    TrainingSize,
    check_exactly_one,
    given_options,
)
from model_export.commands.arguments.sample_arguments import (
    TrainingAugmentationOptions,
    augmentation,
)
from model_export.commands.data_sets.arguments import (
    DrawableDataOptions,
    ValidationOptions,
    data_sources,
)
from model_export.commands.data_sets.training_data import read_training_data
from model_export.commands.reporting import command
from model_export.commands.weights_kind import kind_of_weights
from model_export.errors import InterruptedRunError, ModelExportError
from model_export.loss.presets import PresetName
from model_export.model.variants import HeadKind, usual_size
from model_export.training.config import Machine, Precision, TrainingConfig
from service.core.contract import BoxCoding

if TYPE_CHECKING:
    from model_export.report.run_folder import RunFolder

# For a run of 300 epochs, as in the release; shorter runs have proportionally fewer.
LONGEST_CLOSING: Final = 15
LONGEST_WARMUP: Final = 5
# On a CPU the network's threads wait for the slowest core, so a worker on every core disturbs them
# less than a worker on one. More than this many are seldom needed, and each takes memory.
MOST_WORKERS: Final = 8

FOLDER: Final = Group("The run's folder (one of these)", sort_key=0)
MODEL: Final = Group("The model", sort_key=10)
SCHEDULE: Final = Group("The schedule", sort_key=11)
MACHINE: Final = Group("The machine", sort_key=30)


@Parameter(name="*", group=FOLDER)
@dataclass(frozen=True)
class FolderOptions:
    """The folder of a run."""

    output: Annotated[Path | None, Parameter(metavar="DIR", help="Folder of a new run")] = None
    resume: Annotated[
        Path | None, Parameter(metavar="DIR", help="Folder of the run to continue")
    ] = None


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """The model and its loss; what is not given is None."""

    variant: Annotated[
        Network | None, Parameter(help="The network (unset: that of --weights, or nano)")
    ] = None
    head: Annotated[
        HeadKind | None, Parameter(help="Its head (unset: that of --weights, or decoupled)")
    ] = None
    weights: Annotated[
        AbsolutePath | None,
        Parameter(
            metavar="FILE",
            help="Start from a .pth checkpoint or .npz with any classes (unset: from scratch)",
        ),
    ] = None
    size: Annotated[
        TrainingSize | None,
        Parameter(help="Height and width in pixels (unset: as in --weights, or the variant's)"),
    ] = None
    fixed_size: Annotated[
        bool | None,
        Parameter(
            negative=(), help="Export a model that accepts --size only, not every multiple of 32"
        ),
    ] = None
    loss: Annotated[
        PresetName | None,
        Parameter(help="Loss of the YOLOX release or of the article (unset: yolox)"),
    ] = None
    class_weight: Annotated[
        float | None,
        Parameter(
            metavar="W",
            help="Class loss weight; raise it if objects are easier to find than classify "
            "(unset: 1)",
        ),
    ] = None
    box_coding: Annotated[
        BoxCoding | None,
        Parameter(help="Coding of the raw boxes (unset: that of --weights, or yolox)"),
    ] = None
    center_radius: Annotated[
        float | None,
        Parameter(
            metavar="R",
            help="Assign cells within R strides of an object's centre to it (unset: 1.5)",
        ),
    ] = None


@Parameter(name="*", group=SCHEDULE)
@dataclass(frozen=True)
class ScheduleOptions:
    """The schedule; what is not given is None."""

    epochs: Annotated[Positive | None, Parameter(help="Passes over the data (unset: 300)")] = None
    closing_epochs: Annotated[
        Natural | None,
        Parameter(
            help="Last epochs, without mosaic, MixUp and affine (unset: a tenth, at most 15)"
        ),
    ] = None
    warmup_epochs: Annotated[
        float | None,
        Parameter(
            metavar="N",
            help="First epochs, with a rising learning rate (unset: a twentieth, at most 5)",
        ),
    ] = None
    batch_size: Annotated[
        Positive | None, Parameter(help="Images per step, over all processes (unset: 16)")
    ] = None
    accumulate: Annotated[
        Positive | None, Parameter(help="Parts to compute each batch in (unset: 1)")
    ] = None
    rate_per_image: Annotated[
        float | None,
        Parameter(
            metavar="R",
            help="Learning rate per image of the batch (unset: 0.00015625, which is 0.01 for 64)",
        ),
    ] = None
    evaluate_every: Annotated[
        Positive | None, Parameter(help="Epochs between validations (unset: 1)")
    ] = None
    weight_decay: Annotated[
        float | None, Parameter(metavar="D", help="Decay of the weights (unset: 0.0005)")
    ] = None
    seed: Annotated[
        Natural | None, Parameter(help="Decides the first weights and every sample (unset: 0)")
    ] = None
    average_decay: Annotated[
        float | None,
        Parameter(metavar="D", help="Decay of the moving average of the weights (unset: 0.9998)"),
    ] = None
    average_ramp: Annotated[
        Positive | None,
        Parameter(help="Time constant of the ramp to that decay, in steps (unset: 2000)"),
    ] = None
    norm_images: Annotated[
        Natural | None,
        Parameter(
            help="Samples to recompute the average's batch norms on; 0 to average them (unset: 256)"
        ),
    ] = None


@Parameter(name="*", group=MACHINE)
@dataclass(frozen=True)
class MachineOptions:
    """The parts of the machine that a run uses."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Where to compute")] = "auto"
    workers: Annotated[
        Natural | None,
        Parameter(
            help="Processes that make samples, per GPU (unset: one per core, at most 8)",
        ),
    ] = None
    cache: Annotated[
        Path | None,
        Parameter(metavar="DIR", help="Folder to cache decoded images in (unset: no cache)"),
    ] = None
    precision: Annotated[Precision, Parameter(help="auto: mixed on a GPU, float32 on a CPU")] = (
        "auto"
    )

    def machine(self) -> Machine:
        """The machine that these describe."""
        usual = min(MOST_WORKERS, os.cpu_count() or 1)
        workers = usual if self.workers is None else self.workers
        return Machine(self.device, workers, self.cache, self.precision)


@command("train", extra="train")
def run(
    *,
    where: FolderOptions = FolderOptions(),
    data: DrawableDataOptions = DrawableDataOptions(),
    measured: ValidationOptions = ValidationOptions(),
    model: ModelOptions = ModelOptions(),
    schedule: ScheduleOptions = ScheduleOptions(),
    varied: TrainingAugmentationOptions = TrainingAugmentationOptions(),
    machine: MachineOptions = MachineOptions(),
) -> None:
    """Train a model on a data set, and export it.

    The data have the form COCO, YOLO, Pascal VOC or CSV. The run's folder then holds the best and
    the last weights, the exported ONNX model, metrics and plots. Ctrl-C stops after the current
    step, and --resume continues to the same results. With several GPUs:
    `torchrun --nproc-per-node=N -m model_export train ...`

    Example: `yolox-serve train --data train.json --val val.json --output runs/first`
    """
    check_exactly_one(where)
    folder, given = _folder(where), {**given_options(model), **given_options(schedule)}
    if where.resume:
        others = (given_options(each) for each in (data, measured, varied))
        config = _resumed([*given, *(name for each in others for name in each)], folder)
    else:
        config = _configured(data, measured, given, varied)
    _train(config, machine.machine(), folder, resume=where.resume is not None)


def _folder(where: FolderOptions) -> "RunFolder":
    from model_export.report.run_folder import RunFolder  # noqa: PLC0415

    return RunFolder(where.resume or where.output or Path())


def _train(config: TrainingConfig, machine: Machine, folder: "RunFolder", *, resume: bool) -> None:
    """Train, and print the path of the run's folder."""
    # Only here, so that `--help` and the other commands do not wait for torch.
    from rich.console import Console  # noqa: PLC0415

    from model_export.training.parallel import team  # noqa: PLC0415
    from model_export.training.run import TrainingRun  # noqa: PLC0415
    from model_export.training.signals import stop_on_signals  # noqa: PLC0415

    read_data = partial(read_training_data, config.data, config.seed, config.validation)
    with team(machine.device) as members, stop_on_signals() as stop:
        console = Console(stderr=True)
        training = TrainingRun(config, machine, read_data, folder, resume, members, console)
        complete = training.run(stop)
    if not complete:
        how = f"stopped; `yolox-serve train --resume {folder.path}` goes on"
        # A process without a signal of its own stops because another process got one.
        raise InterruptedRunError(how if members.leads else "", stop.number or signal.SIGTERM)
    if members.leads:
        sys.stdout.write(f"{folder.path}\n")


def _resumed(given: Sequence[str], folder: "RunFolder") -> TrainingConfig:
    """The configuration of a continued run, which cannot be changed."""
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise ModelExportError(f"--resume keeps the run's configuration: leave out {names}")
    return TrainingConfig.from_json(folder.read_config())


def _like_the_weights(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The given options; what they leave open is as the checkpoint to start from says."""
    from model_export.model.about import read_about  # noqa: PLC0415

    weights: Path | None = given.get("weights")
    if weights is None:
        return given
    kind = kind_of_weights(weights, given.get("variant"), given.get("head"))
    about = read_about(weights)
    known: dict[str, Any] = {"variant": kind.variant, "head": kind.head}
    if about:
        size = about.contract.input
        known |= {"box_coding": about.contract.box_coding, "size": (size.height, size.width)}
    return known | dict(given)


def _configured(
    data: DrawableDataOptions,
    measured: ValidationOptions,
    given: Mapping[str, Any],
    varied: TrainingAugmentationOptions,
) -> TrainingConfig:
    """The configuration of a new run."""
    source, validation = data_sources(data, measured)
    given = _like_the_weights(given)
    variant = given.get("variant", "nano")
    side = usual_size(variant)
    height, width = given.get("size", (side, side))
    epochs = given.get("epochs", 300)
    defaults: dict[str, Any] = {
        "closing_epochs": min(LONGEST_CLOSING, epochs // 10),
        "warmup_epochs": min(LONGEST_WARMUP, epochs / 20),
    }
    plain = {name: value for name, value in given.items() if name not in ("variant", "size")}
    return TrainingConfig(
        variant=variant,
        data=source,
        validation=validation,
        height=height,
        width=width,
        augmentation=augmentation(varied, data.data or (), variant),
        **(defaults | plain),
    )
