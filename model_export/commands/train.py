"""`yolox-serve train`: a data set to a trained and exported model."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model_export.commands.arguments.argument_types import check_exactly_one, given_options
from model_export.commands.arguments.config_file import ConfigFile
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
from model_export.commands.training.options import (
    FolderOptions,
    MachineOptions,
    ModelOptions,
    ScheduleOptions,
)
from model_export.commands.training.resume import resumed
from model_export.commands.weights_kind import kind_of_weights
from model_export.errors import InterruptedRunError
from model_export.model.variants import usual_size
from model_export.training.config import TrainingConfig
from service.console import print_note

if TYPE_CHECKING:
    from model_export.report.run_folder import RunFolder

# For a run of 300 epochs, as in the release; shorter runs have proportionally fewer.
LONGEST_CLOSING: Final = 15
LONGEST_WARMUP: Final = 5


@command("train", extra="train")
def run(  # noqa: PLR0913 - each argument is a group of options
    *,
    where: FolderOptions = FolderOptions(),
    data: DrawableDataOptions = DrawableDataOptions(),
    measured: ValidationOptions = ValidationOptions(),
    model: ModelOptions = ModelOptions(),
    schedule: ScheduleOptions = ScheduleOptions(),
    varied: TrainingAugmentationOptions = TrainingAugmentationOptions(),
    machine: MachineOptions = MachineOptions(),
    config: ConfigFile = None,
) -> None:
    """Train a model on a data set, and export it.

    The data have the form COCO, YOLO, Pascal VOC or CSV. The run's folder then holds the best and
    the last weights, the exported ONNX model, metrics and plots. Ctrl-C stops after the current
    step, and --resume continues to the same results; --data and --val then name the place of data
    that have moved, and --epochs may be another. With several GPUs: `yolox-serve torchrun`

    Example: `yolox-serve train --data train.json --val val.json --output runs/first`
    """
    del config  # cyclopts has merged it with the flags
    check_exactly_one(where)
    folder, given = _folder(where), {**given_options(model), **given_options(schedule)}
    fit_batch = given.get("batch_size") == "auto"
    if fit_batch:
        del given["batch_size"]
    if where.resume:
        settings = resumed(folder, given, data, measured, given_options(varied))
    else:
        settings = _configured(data, measured, given, varied)
    _train(settings, machine, folder, resume=where.resume is not None, fit_batch=fit_batch)


def _folder(where: FolderOptions) -> "RunFolder":
    from model_export.report.run_folder import RunFolder  # noqa: PLC0415

    return RunFolder(where.resume or where.output or Path())


def _train(
    config: TrainingConfig,
    options: MachineOptions,
    folder: "RunFolder",
    *,
    resume: bool,
    fit_batch: bool,
) -> None:
    """Train, and print the path of the run's folder."""
    # Only here, so that `--help` and the other commands do not wait for torch.
    from rich.console import Console  # noqa: PLC0415

    from model_export.training.parallel import team  # noqa: PLC0415
    from model_export.training.run import TrainingRun  # noqa: PLC0415
    from model_export.training.signals import stop_on_signals  # noqa: PLC0415

    read_data = partial(read_training_data, config.data, config.seed, config.validation)
    with (
        team(options.device) as members,
        stop_on_signals(options.time_limit) as stop,
        _cache(options, folder) as cache,
    ):
        console = Console(stderr=True)
        machine = options.machine(cache, fit_batch=fit_batch)
        training = TrainingRun(config, machine, read_data, folder, resume, members, console)
        complete = training.run(stop)
        out_of_time = members.any(stop.time_is_up) and not members.any(stop.number > 0)
    if not complete:
        how = f"stopped; `yolox-serve train --resume {folder.path}` goes on"
        if not out_of_time:
            # A process without a signal of its own stops because another process got one.
            raise InterruptedRunError(how if members.leads else "", stop.number or signal.SIGTERM)
        print_note(f"the time is up: {how}" if members.leads else "")
    if members.leads:
        sys.stdout.write(f"{folder.path}\n")


@contextmanager
def _cache(options: MachineOptions, folder: "RunFolder") -> Iterator[Path | None]:
    """The folder of the cache, if there is one; one in memory is gone afterwards."""
    from model_export.data.image_cache import ram_folder  # noqa: PLC0415

    if options.cache != "ram":
        yield options.cache
        return
    with ram_folder(str(folder.path.absolute())) as place:
        yield place


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
        coding, other = about.contract.box_coding, given.get("box_coding")
        known |= {"box_coding": coding, "size": (size.height, size.width)}
        if other not in (None, coding):
            print_note(
                f"warning: the boxes of {weights} have the coding {coding}: with {other}, the "
                "layer that gives boxes has to learn anew"
            )
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
