"""The configuration of a run that is continued, perhaps with moved data and more epochs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.commands.arguments.argument_types import given_options
from model_export.commands.data_sets.arguments import DataOptions, ValidationOptions
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.training.config import TrainingConfig

if TYPE_CHECKING:
    from model_export.report.run_folder import RunFolder

PLACES = ("data", "images", "val", "val_images")


def resumed(
    folder: "RunFolder",
    given: Mapping[str, Any],
    data: DataOptions,
    measured: ValidationOptions,
    varied: Mapping[str, Any],
) -> TrainingConfig:
    """The configuration of the run in a folder, with the changes that leave it the same run.

    Args:
        folder: The run's folder.
        given: The options of model and schedule that are given.
        data: The place of the data to learn from, if it changed.
        measured: The place of the data to measure on, if it changed.
        varied: The options of augmentation that are given.

    Raises:
        ModelExportError: Another option is given, or the data are not found.
    """
    # Only here, so that `--help` does not wait for OpenCV and matplotlib.
    from model_export.training.resuming import (  # noqa: PLC0415
        CHANGEABLE,
        refuse_lost_data,
        with_moved_data,
    )

    places = {**given_options(data), **given_options(measured)}
    every = {**given, **places, **varied}
    if fixed := sorted(every.keys() - CHANGEABLE.keys() - set(PLACES)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in fixed)
        raise ModelExportError(f"--resume keeps the run's configuration: leave out {names}")
    config = TrainingConfig.from_json(folder.read_config())
    changed = {name: value for name, value in given.items() if name in CHANGEABLE}
    config = replace(config, **changed)
    moved = with_moved_data(
        config, _place(data.data, data.images), _place(measured.val, measured.val_images)
    )
    refuse_lost_data(moved)
    return moved


def _place(paths: tuple[object, ...] | None, images: Path | None) -> DataSource | None:
    if not paths:
        return None
    files = [each for each in paths if isinstance(each, Path)]
    if len(files) < len(paths):
        raise ModelExportError("--resume takes paths for --data and --val, and nothing else")
    return DataSource(files[0], images, more=tuple(files[1:]))
