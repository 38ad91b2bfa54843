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
    training_data,
    training_size,
)
from model_export.commands.sample_arguments import add_augmentation_arguments, augmentation
from model_export.commands.training_data import read_training_data
from model_export.data.sources import DataSource
from model_export.errors import InterruptedRunError, ModelExportError
from model_export.loss.presets import PRESET_NAMES
from model_export.model.variants import HEAD_KINDS, VARIANTS, usual_size
from model_export.training.config import PRECISIONS, DrawnBarcodes, Machine, TrainingConfig
from service.core.contract import BoxCoding

if TYPE_CHECKING:
    from model_export.report.run_folder import RunFolder

# Of a run of 300 epochs; shorter ones have proportionally less, as far as the release goes.
LONGEST_CLOSING: Final = 15
LONGEST_WARMUP: Final = 5
# One on each core disturbs a network that runs on all of them less than one on one of them would:
# what all its threads wait for is the slowest. More than this are seldom needed, and take memory.
MOST_WORKERS: Final = 8
# Fields of `TrainingConfig` that are taken as they are given.
PLAIN: Final = (
    *("head", "weights", "loss", "class_weight", "box_coding", "center_radius", "batch_size"),
    *("accumulate", "rate_per_image", "weight_decay", "average_decay", "average_ramp"),
    *("norm_images", "evaluate_every", "seed", "fixed_size"),
)
# What is no part of the configuration.
OTHERS: Final = frozenset(
    {"command", "run", "output", "resume", "device", "workers", "cache", "precision"}
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = (
        "Train a YOLOX on a COCO or VOC data set. The folder of the run has at its end the best "
        "and the last weights, the exported ONNX model, metrics and plots. Ctrl-C stops after the "
        "current step, and --resume goes on to the same numbers. With several GPUs: torchrun "
        "--nproc-per-node=N -m model_export train ..."
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--output", type=Path, metavar="DIR", help="folder of a new run")
    where.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run of a folder")
    _add_data_arguments(parser)
    _add_model_arguments(parser)
    _add_schedule_arguments(parser)
    add_augmentation_arguments(parser)
    _add_machine_arguments(parser.add_argument_group("the machine"))


def run(arguments: argparse.Namespace) -> None:
    """Train, and print where the run is."""
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
    read_data = partial(read_training_data, config.data, config.seed)
    machine = Machine(arguments.device, arguments.workers, arguments.cache, arguments.precision)
    with team(machine.device) as members, stop_on_signals() as stop:
        console = Console(stderr=True)
        training = TrainingRun(config, machine, read_data, folder, resume, members, console)
        complete = training.run(stop)
    if not complete:
        how = f"stopped; `python -m model_export train --resume {folder.path}` goes on"
        # A process that got no signal itself heard of it from another.
        raise InterruptedRunError(how if members.leads else "", stop.number or signal.SIGTERM)
    if members.leads:
        sys.stdout.write(f"{folder.path}\n")


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the data", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--data",
        type=training_data,
        metavar="PATH",
        help="a COCO json, a VOC folder, or barcodes:N to draw N pictures an epoch; needed",
    )
    group.add_argument(
        "--images", type=absolute, metavar="DIR", help="images of a COCO json (its folder)"
    )
    group.add_argument("--split", metavar="NAME", help="list of a VOC folder (train)")
    group.add_argument(
        "--val", type=absolute, metavar="PATH", help="what to measure on (a VOC folder's own val)"
    )
    group.add_argument("--val-images", type=absolute, metavar="DIR", help="likewise (its folder)")
    group.add_argument("--val-split", metavar="NAME", help="list of a VOC folder (val)")


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model", argument_default=argparse.SUPPRESS)
    group.add_argument("--variant", choices=VARIANTS, help="which network (nano)")
    group.add_argument("--head", choices=HEAD_KINDS, help="its head (decoupled)")
    group.add_argument(
        "--weights",
        type=absolute,
        metavar="FILE",
        help="start from a .pth checkpoint or .npz, whatever its classes (from nothing)",
    )
    group.add_argument(
        "--size",
        type=training_size,
        metavar="N|HxW",
        help="height and width in pixels (the variant's)",
    )
    group.add_argument(
        "--fixed-size",
        action="store_true",
        help="export a model that takes --size only, not any multiples of 32",
    )
    group.add_argument(
        "--loss", choices=PRESET_NAMES, help="as YOLOX was released, or the article's (yolox)"
    )
    group.add_argument(
        "--class-weight",
        type=float,
        metavar="W",
        help="of the class loss: more where objects are easier found than told apart (1)",
    )
    group.add_argument(
        "--box-coding", choices=get_args(BoxCoding), help="how raw values stand for boxes (yolox)"
    )
    group.add_argument(
        "--center-radius",
        type=float,
        metavar="R",
        help="how near to an object's centre cells may learn it, in strides (1.5)",
    )


def _add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the schedule", argument_default=argparse.SUPPRESS)
    group.add_argument("--epochs", type=positive, metavar="N", help="(300)")
    group.add_argument(
        "--closing-epochs",
        type=natural,
        metavar="N",
        help="last ones, without mosaic, MixUp and affine (a tenth, at most 15)",
    )
    group.add_argument(
        "--warmup-epochs",
        type=float,
        metavar="N",
        help="first ones, of rising learning rate (a twentieth, at most 5)",
    )
    group.add_argument(
        "--batch-size", type=positive, metavar="N", help="images of a step, of all processes (16)"
    )
    group.add_argument(
        "--accumulate", type=positive, metavar="N", help="compute it in so many parts (1)"
    )
    group.add_argument(
        "--rate-per-image",
        type=float,
        metavar="R",
        help="learning rate, times the batch size (0.00015625: 0.01 for 64)",
    )
    group.add_argument(
        "--multiscale",
        type=natural,
        metavar="N",
        help="training sizes vary by up to so many times 32 pixels; 0 for one size (5)",
    )
    group.add_argument("--weight-decay", type=float, metavar="D", help="(0.0005)")
    group.add_argument(
        "--average-decay",
        type=float,
        metavar="D",
        help="how slowly the average of the weights follows (0.9998)",
    )
    group.add_argument(
        "--average-ramp",
        type=positive,
        metavar="N",
        help="steps in which it slows down to that (2000)",
    )
    group.add_argument(
        "--norm-images",
        type=natural,
        metavar="N",
        help="samples to measure the average's batch norms on; 0 keeps averaged ones (256)",
    )
    group.add_argument(
        "--evaluate-every", type=positive, metavar="N", help="epochs between measurements (1)"
    )
    group.add_argument("--seed", type=natural, metavar="N", help="(0)")


def _add_machine_arguments(group: argparse._ArgumentGroup) -> None:
    default = Machine()
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default=default.device, help="(auto)"
    )
    group.add_argument(
        "--workers",
        type=natural,
        default=min(MOST_WORKERS, os.cpu_count() or 1),
        metavar="N",
        help="processes that make samples, for each GPU (one per core, at most 8)",
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep decoded images there (do not)"
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=default.precision,
        help="auto: mixed on a GPU, float32 on a CPU (auto)",
    )


def _resumed(given: Mapping[str, Any], folder: "RunFolder") -> TrainingConfig:
    """The configuration of a run that goes on; nothing of it can be changed."""
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise ModelExportError(f"--resume goes on as configured: leave out {names}")
    return TrainingConfig.from_json(folder.read_config())


def _configured(given: Mapping[str, Any]) -> TrainingConfig:
    """The configuration of a new run."""
    data, validation = _sources(given)
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


def _sources(given: Mapping[str, Any]) -> tuple[DataSource | DrawnBarcodes, DataSource]:
    if "data" not in given:
        raise ModelExportError("a new run needs --data: a COCO json, or a VOC folder")
    source: Path | DrawnBarcodes = given["data"]
    own = source if isinstance(source, Path) and source.is_dir() else None
    measured = given.get("val", own)
    if measured is None:
        raise ModelExportError(
            "only a VOC folder has images to measure on of its own; name a COCO json: --val"
        )
    validation = DataSource(measured, given.get("val_images"), given.get("val_split", "val"))
    if isinstance(source, DrawnBarcodes):
        return source, validation
    return DataSource(source, given.get("images"), given.get("split", "train")), validation
