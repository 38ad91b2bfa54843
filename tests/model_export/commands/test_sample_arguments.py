"""The arguments of augmentation."""

import pytest
from cyclopts import CycloptsError

from model_export.commands.arguments.sample_arguments import (
    TrainingAugmentationOptions,
    augmentation,
)
from model_export.samples.settings import augmentation_for
from support.commands import bound


def sizes(*arguments: str) -> tuple[int, int]:
    def command(*, varied: TrainingAugmentationOptions = TrainingAugmentationOptions()) -> None: ...

    given = bound(command, *arguments)
    given.apply_defaults()
    return augmentation(given.arguments["varied"], (), "nano").size_changes


def test_sizes_vary_as_given() -> None:
    assert sizes() == augmentation_for("nano").size_changes
    assert sizes("--multiscale", "0") == (0, 0)
    assert sizes("--multiscale", "5") == (5, 5)
    assert sizes("--multiscale", "3,7") == (3, 7)


@pytest.mark.parametrize("text", ["-1", "3,-7", "3,7,9", "3,", "x"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(CycloptsError, match=r"3,7|negative|whole number"):
        sizes(f"--multiscale={text}")
