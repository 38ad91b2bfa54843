"""Going on with a run, perhaps on another machine: its data may have moved, but not changed."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from model_export.data.checked_images import CheckedImages
from model_export.data.identity import Identity, identity, read_identities
from model_export.data.sources import DataSource
from model_export.errors import ModelExportError
from model_export.report.run_folder import RunFolder
from model_export.training.config import DrawnBarcodes, TrainingConfig

# The settings that a run can go on with other values of; their names in a sentence.
CHANGEABLE: Final = {
    "epochs": "epochs",
    "closing_epochs": "closing epochs",
    "evaluate_every": "epochs between validations",
    "patience": "patience",
}


def identities(train: object, val: CheckedImages) -> dict[str, Identity]:
    """The identity of a training's data, by role; drawn pictures follow from the seed alone."""
    parts = {"training": train, "validation": val}
    return {
        role: identity(data.class_names, data.images, data.digests)
        for role, data in parts.items()
        if isinstance(data, CheckedImages)
    }


def refuse_other_data(folder: RunFolder, now: dict[str, Identity]) -> None:
    """Refuse data that a run was not begun with; they may lie elsewhere.

    The run of an earlier release says nothing about its data, and any are taken.

    Raises:
        ModelExportError: Names or contents differ, or the run's file cannot be read.
    """
    text = folder.read_data()
    if text is None:
        return
    try:
        before = read_identities(text)
    except ValueError as error:
        raise ModelExportError(f"{folder.data} is damaged: {error}") from error
    differences = [
        f"{role}: {difference}"
        for role, each in before.items()
        if role in now
        for difference in each.differences(now[role])
    ]
    if differences:
        raise ModelExportError(
            f"these are not the data that {folder.path} was begun with ({'; '.join(differences)}); "
            f"a new run can start from its weights: --weights {folder.last}"
        )


def with_moved_data(
    config: TrainingConfig, data: DataSource | None, val: DataSource | None
) -> TrainingConfig:
    """The configuration with other places of the same data.

    Args:
        config: The configuration of the run so far.
        data: The place of the data to learn from now; None if it is the same.
        val: That of the data to measure on; None if they lie as before beside the others, or are
            where they were.

    Raises:
        ModelExportError: The run draws its pictures.
    """
    source, validation = config.data, config.validation
    if data is not None:
        if isinstance(source, DrawnBarcodes):
            raise ModelExportError("this run draws its pictures: --data does not belong to it")
        moved = _moved(source, data)
        if val is None:
            validation = _beside(validation, source, moved)
        source = moved
    if val is not None:
        validation = _moved(validation, val)
    return replace(config, data=source, validation=validation)


def refuse_lost_data(config: TrainingConfig) -> None:
    """Say how to name the place of data that are no longer where they were.

    Raises:
        ModelExportError: A file or folder of the data does not exist.
    """
    for flag, source in (("--data", config.data), ("--val", config.validation)):
        for path in source.paths if isinstance(source, DataSource) else ():
            if not path.exists():
                raise ModelExportError(
                    f"the data of this run are no longer at {path}; if they have moved, name their "
                    f"place with {flag}: they are compared by names and contents"
                )


def changes(before: TrainingConfig, now: TrainingConfig) -> Iterator[str]:
    """The changes that a run goes on with, in lines for a person."""
    for role, old, new in (
        ("training", before.data, now.data),
        ("validation", before.validation, now.validation),
    ):
        if isinstance(old, DataSource) and isinstance(new, DataSource) and old.paths != new.paths:
            where = (" + ".join(map(str, each.paths)) for each in (old, new))
            yield f"the {role} data have moved from {' to '.join(where)}, and are the same"
    for name, text in CHANGEABLE.items():
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            yield f"{text}: {new} instead of {old}"
    if before.epochs != now.epochs:
        yield f"the learning rate is that of a run of {now.epochs} epochs from here on"


def _moved(source: DataSource, place: DataSource) -> DataSource:
    return replace(source, path=place.path, more=place.more, images=place.images)


def _beside(validation: DataSource, before: DataSource, now: DataSource) -> DataSource:
    """The validation data where they are now, if they moved together with the training data."""
    places = [_follow(path, before.path, now.path) for path in validation.paths]
    if not all(place.exists() for place in places):
        return validation
    images = validation.images and _follow(validation.images, before.path, now.path)
    if images is not None and not images.exists():
        images = None
    return replace(validation, path=places[0], more=tuple(places[1:]), images=images)


def _follow(path: Path, before: Path, now: Path) -> Path:
    return Path(os.path.normpath(now / os.path.relpath(path, before)))
