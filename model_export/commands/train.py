"""`python -m model_export train`: a data set to a trained and exported model."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from model_export.commands.argument_types import (
    absolute,
    natural,
    positive,
    training_size,
)
from model_export.commands.data_sets.arguments import (
    add_data_arguments,
    add_validation_arguments,
    data_sources,
)
from model_export.commands.data_sets.training_data import read_training_data
from model_export.commands.sample_arguments import add_augmentation_arguments, augmentation
from model_export.commands.weights_kind import kind_of_weights
from model_export.errors import InterruptedRunError, ModelExportError
from model_export.loss.presets import PRESET_NAMES
from model_export.model.variants import HEAD_KINDS, VARIANTS, plain_variant, usual_size
from model_export.training.config import PRECISIONS, Machine, TrainingConfig
from service.core.contract import BoxCoding

if TYPE_CHECKING:
    from model_export.report.run_folder import RunFolder

# For a run of 300 epochs, as in the release; shorter runs have proportionally fewer.
LONGEST_CLOSING: Final = 15
LONGEST_WARMUP: Final = 5
# On a CPU the network's threads wait for the slowest core, so a worker on every core disturbs them
# less than a worker on one. More than this many are seldom needed, and each takes memory.
MOST_WORKERS: Final = 8
# Fields of `TrainingConfig` that arguments set directly.
PLAIN: Final = (
    *("head", "weights", "loss", "class_weight", "box_coding", "center_radius", "batch_size"),
    *("accumulate", "rate_per_image", "weight_decay", "average_decay", "average_ramp"),
    *("norm_images", "evaluate_every", "seed", "fixed_size"),
)
# Arguments that are not part of the configuration.
OTHERS: Final = frozenset(
    {"command", "run", "output", "resume", "device", "workers", "cache", "precision"}
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Train a YOLOX on data of the form COCO, YOLO, Pascal VOC or CSV. The run's folder then "
        "holds the best and the last weights, the exported ONNX model, metrics and plots. Ctrl-C "
        "stops after the current step, and --resume continues to the same results. With several "
        "GPUs: torchrun --nproc-per-node=N -m model_export train ..."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, metavar="DIR", help="folder of a new run")
    where.add_argument("--resume", type=Path, metavar="DIR", help="folder of the run to continue")
    data = parser.add_argument_group("the data", argument_default=argparse.SUPPRESS)
    add_data_arguments(data)
    add_validation_arguments(data)
    _add_model_arguments(parser)
    _add_schedule_arguments(parser)
    add_augmentation_arguments(parser)
    _add_machine_arguments(parser.add_argument_group("the machine"))


def run(arguments: argparse.Namespace) -> None:
    """Train, and print the path of the run's folder."""
    # Only here, so that `--help` and the other commands do not wait for torch.
    from rich.console import Console  # noqa: PLC0415

    from model_export.report.run_folder import RunFolder  # noqa: PLC0415
    from model_export.training.parallel import team  # noqa: PLC0415
    from model_export.training.run import TrainingRun  # noqa: PLC0415
    from model_export.training.signals import stop_on_signals  # noqa: PLC0415

    resume = arguments.resume is not None
    folder = RunFolder(arguments.resume or arguments.output)
    given = {name: value for name, value in vars(arguments).items() if name not in OTHERS}
    config = _resumed(given, folder) if resume else _configured(given)
    read_data = partial(read_training_data, config.data, config.seed, config.validation)
    machine = Machine(arguments.device, arguments.workers, arguments.cache, arguments.precision)
    with team(machine.device) as members, stop_on_signals() as stop:
        console = Console(stderr=True)
        training = TrainingRun(config, machine, read_data, folder, resume, members, console)
        complete = training.run(stop)
    if not complete:
        how = f"stopped; `python -m model_export train --resume {folder.path}` goes on"
        # A process without a signal of its own stops because another process got one.
        raise InterruptedRunError(how if members.leads else "", stop.number or signal.SIGTERM)
    if members.leads:
        sys.stdout.write(f"{folder.path}\n")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--variant",
        type=plain_variant,
        choices=VARIANTS,
        help="the network (default: that of --weights, or nano)",
    )
    group.add_argument(
        "--head", choices=HEAD_KINDS, help="its head (default: that of --weights, or decoupled)"
    )
    group.add_argument(
        "--weights",
        type=absolute,
        metavar="FILE",
        help="start from a .pth checkpoint or .npz with any classes (default: from scratch)",
    )
    group.add_argument(
        "--size",
        type=training_size,
        metavar="N|HxW",
        help="height and width in pixels (default: as in --weights, or the variant's)",
    )
    group.add_argument(
        "--fixed-size",
        action="store_true",
        help="export a model that accepts --size only, not every multiple of 32",
    )
    group.add_argument(
        "--loss",
        choices=PRESET_NAMES,
        help="loss of the YOLOX release or of the article (default: yolox)",
    )
    group.add_argument(
        "--class-weight",
        type=float,
        metavar="W",
        help="class loss weight; raise it if objects are easier to find than classify (default: 1)",
    )
    group.add_argument(
        "--box-coding",
        choices=get_args(BoxCoding),
        help="coding of the raw boxes (default: that of --weights, or yolox)",
    )
    group.add_argument(
        "--center-radius",
        type=float,
        metavar="R",
        help="assign cells within R strides of an object's centre to it (default: 1.5)",
    )


def _add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the schedule", argument_default=argparse.SUPPRESS)
    group.add_argument("--epochs", type=positive, metavar="N", help="(default: 300)")
    group.add_argument(
        "--closing-epochs",
        type=natural,
        metavar="N",
        help="last epochs, without mosaic, MixUp and affine (default: a tenth, at most 15)",
    )
    group.add_argument(
        "--warmup-epochs",
        type=float,
        metavar="N",
        help="first epochs, with a rising learning rate (default: a twentieth, at most 5)",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images per step, over all processes (default: 16)",
    )
    group.add_argument(
        "--accumulate",
        type=positive,
        metavar="N",
        help="parts to compute each batch in (default: 1)",
    )
    group.add_argument(
        "--rate-per-image",
        type=float,
        metavar="R",
        help="learning rate per image of the batch (default: 0.00015625, which is 0.01 for 64)",
    )
    group.add_argument(
        "--multiscale",
        type=natural,
        metavar="N",
        help="training sizes vary by up to N times 32 pixels; 0 for one size (default: 5)",
    )
    group.add_argument(
        "--evaluate-every",
        type=positive,
        metavar="N",
        help="epochs between validations (default: 1)",
    )
    group.add_argument("--weight-decay", type=float, metavar="D", help="(default: 0.0005)")
    group.add_argument("--seed", type=natural, metavar="N", help="(default: 0)")
    _add_average_arguments(group)


def _add_average_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--average-decay",
        type=float,
        metavar="D",
        help="decay of the moving average of the weights (default: 0.9998)",
    )
    group.add_argument(
        "--average-ramp",
        type=positive,
        metavar="N",
        help="time constant of the ramp to that decay, in steps (default: 2000)",
    )
    group.add_argument(
        "--norm-images",
        type=natural,
        metavar="N",
        help="samples to recompute the average's batch norms on; 0 to average them (default: 256)",
    )


def _add_machine_arguments(group: argparse._ArgumentGroup) -> None:
    default = Machine()
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default=default.device, help="(default: auto)"
    )
    group.add_argument(
        "--workers",
        type=natural,
        default=min(MOST_WORKERS, os.cpu_count() or 1),
        metavar="N",
        help="processes that make samples, per GPU (default: one per core, at most 8)",
    )
    group.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder to cache decoded images in (default: no cache)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=default.precision,
        help="auto: mixed on a GPU, float32 on a CPU (default: auto)",
    )


def _resumed(given: Mapping[str, Any], folder: "RunFolder") -> TrainingConfig:
    """The configuration of a continued run, which cannot be changed."""
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise ModelExportError(f"--resume keeps the run's configuration: leave out {names}")
    return TrainingConfig.from_json(folder.read_config())


def _like_the_weights(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The given arguments; what they leave open is as the checkpoint to start from says."""
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


def _configured(given: Mapping[str, Any]) -> TrainingConfig:
    """The configuration of a new run."""
    data, validation = data_sources(given)
    given = _like_the_weights(given)
    variant = given.get("variant", "nano")
    side = usual_size(variant)
    height, width = given.get("size", (side, side))
    epochs = given.get("epochs", 300)
    plain = {name: given[name] for name in PLAIN if name in given}
    return TrainingConfig(
        variant=variant,
        data=data,
        validation=validation,
        height=height,
        width=width,
        augmentation=augmentation(given, variant),
        epochs=epochs,
        closing_epochs=given.get("closing_epochs", min(LONGEST_CLOSING, epochs // 10)),
        warmup_epochs=given.get("warmup_epochs", min(LONGEST_WARMUP, epochs / 20)),
        **plain,
    )
