"""The options of `train`, in the groups of its help."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Group, Parameter

from model_export.commands.arguments.argument_types import (
    AbsolutePath,
    Natural,
    Network,
    Positive,
    TrainingSize,
    WrongValueError,
    parsed_by,
    positive,
)
from model_export.loss.presets import PresetName
from model_export.model.variants import ALL_BUT_HEAD, HeadKind
from model_export.training.config import LoggerName, Machine, Precision
from service.core.contract import BoxCoding

# On a CPU the network's threads wait for the slowest core, so a worker on every core disturbs them
# less than a worker on one. More than this many are seldom needed, and each takes memory.
MOST_WORKERS: Final = 8

FROZEN: Final = {"backbone": ALL_BUT_HEAD - 1, "neck": ALL_BUT_HEAD}
SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def frozen_stages(text: str) -> int:
    """The number of stages of `backbone`, `neck` or a number."""
    if text in FROZEN:
        return FROZEN[text]
    if not text.isdecimal() or int(text) >= ALL_BUT_HEAD:
        raise WrongValueError(f"{text} is none of backbone, neck, and 0 to {ALL_BUT_HEAD - 1}")
    return int(text)


def images_per_step(text: str) -> int | Literal["auto"]:
    """A number of images, or `auto`."""
    return "auto" if text == "auto" else positive(text)


def duration(text: str) -> float:
    """Seconds of `90m`, `1h30m` or `45s`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise WrongValueError(f"{text} is no time such as 90m, 1h30m or 45s")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


def cache_place(text: str) -> Path | Literal["ram"]:
    """A folder, or `ram`."""
    return "ram" if text == "ram" else Path(text)


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
            help="Start from a .pth checkpoint, .npz or exported .onnx (unset: from scratch)",
        ),
    ] = None
    size: Annotated[
        TrainingSize | None,
        Parameter(help="Height and width in pixels (unset: as in --weights, or the variant's)"),
    ] = None
    freeze: Annotated[
        int | None,
        parsed_by(frozen_stages, "PART"),
        Parameter(
            help="Keep parts as in --weights: backbone, neck (with the backbone), or the first N "
            "of the backbone's 5 stages"
        ),
    ] = None
    single_class: Annotated[
        bool | None, Parameter(negative=(), help="Take all classes for one")
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
    balance: Annotated[
        float | None,
        Parameter(
            metavar="P",
            help="Weight a class of n boxes by n to the power of -P in the class loss: 0.5 helps "
            "rare classes (unset: 0)",
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
    patience: Annotated[
        Positive | None,
        Parameter(
            help="Epochs without a better AP after which the closing epochs begin, or the "
            "run ends (unset: no limit)"
        ),
    ] = None
    batch_size: Annotated[
        int | Literal["auto"] | None,
        parsed_by(images_per_step, "N|auto"),
        Parameter(
            help="Images per step, over all processes; auto: as many as fit into memory, at most "
            "64 (unset: 16)"
        ),
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
        Path | Literal["ram"] | None,
        parsed_by(cache_place, "DIR|ram"),
        Parameter(help="Folder to cache decoded images in, or ram for memory (unset: no cache)"),
    ] = None
    precision: Annotated[Precision, Parameter(help="auto: mixed on a GPU, float32 on a CPU")] = (
        "auto"
    )

    time_limit: Annotated[
        float | None,
        parsed_by(duration, "TIME"),
        Parameter(
            help="Stop after this time, such as 90m or 1h30m, as Ctrl-C does, with exit code 0"
        ),
    ] = None
    log: Annotated[
        tuple[LoggerName, ...],
        Parameter(
            consume_multiple=True,
            help="Log to MLflow or Weights & Biases too; extras of the same name",
        ),
    ] = ()

    def machine(self, cache: Path | None, *, fit_batch: bool = False) -> Machine:
        """The machine that these describe.

        Args:
            cache: The folder of the cache, perhaps one in memory.
            fit_batch: Whether the batch is to fill the memory.
        """
        usual = min(MOST_WORKERS, os.cpu_count() or 1)
        workers = usual if self.workers is None else self.workers
        return Machine(self.device, workers, cache, self.precision, fit_batch, self.log)
