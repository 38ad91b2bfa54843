"""A run goes on elsewhere: in another folder, with moved data, with more epochs."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model_export.__main__ import main
from model_export.data.annotations import AnnotatedImage
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.identity import identities_text, read_identities
from model_export.data.reading import read_annotations
from model_export.data.sources import DataSource
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import ModelExportError
from model_export.report.run_folder import RunFolder
from model_export.samples.settings import Augmentation
from model_export.training.config import DrawnBarcodes, TrainingConfig
from model_export.training.resuming import (
    changes,
    identities,
    refuse_other_data,
    with_moved_data,
)
from model_export.training.run import TrainingRun
from model_export.training.signals import StopRequest

TINY = (
    *("--variant", "pico", "--size", "64", "--batch-size", "2", "--multiscale", "0"),
    *("--mosaic", "0.5", "--epochs", "2", "--closing-epochs", "1", "--norm-images", "2"),
)
HERE = ("--workers", "0", "--device", "cpu")
IMAGES = 6


@pytest.fixture(autouse=True)
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports and the export, which take most of the time, are tested elsewhere."""
    monkeypatch.setattr(TrainingRun, "_finish", lambda *_: None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_data(folder, shapes(64, 0), train=IMAGES, val=2)
    return folder


def begin(data: Path, run: Path) -> int:
    files = ("--data", str(data / "train.json"), "--val", str(data / "val.json"))
    return main(["train", *files, "--output", str(run), *TINY, *HERE])


def state(run: Path) -> dict[str, Tensor]:
    content = torch.load(run / "last.pth", weights_only=True)
    training = content["training"]
    momenta = training["optimizer"]["state"]
    return {
        **{f"average {name}": value for name, value in content["model"].items()},
        **{f"weights {name}": value for name, value in training["weights"].items()},
        **{f"momentum {i}": value["momentum_buffer"] for i, value in momenta.items()},
    }


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the columns that the clock decides."""
    with (run / "metrics.csv").open() as file:
        clock = ("seconds", "images_per_second")
        return [{k: v for k, v in row.items() if k not in clock} for row in csv.DictReader(file)]


def stopped_after(steps: int) -> Callable[[StopRequest], bool]:
    """`StopRequest.made` that becomes true after a number of steps."""
    asked = iter(range(1, 1000))
    return lambda _request: next(asked) >= steps


def test_interrupted_run_goes_on_in_another_folder_to_the_same_bits(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(demo, tmp_path / "whole") == 0

    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(demo, here / "data")
    with monkeypatch.context() as patched:
        # In the middle of the second epoch, which has three steps.
        patched.setattr(StopRequest, "made", property(stopped_after(5)))
        assert begin(here / "data", here / "run") == 143
    here.rename(there)
    capsys.readouterr()
    moved = ("--data", str(there / "data" / "train.json"))

    assert main(["train", "--resume", str(there / "run"), *moved, *HERE]) == 0

    said = capsys.readouterr().err
    assert f"the training data have moved from {here / 'data' / 'train.json'} to" in said
    assert "the validation data have moved" in said
    assert "goes on in epoch 2 of 2, with step 3 of 3" in said
    whole, resumed = state(tmp_path / "whole"), state(there / "run")
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    # The losses of the interrupted epoch are means over all of its steps.
    assert rows(there / "run") == rows(tmp_path / "whole")

    (there / "data" / "train.json").rename(there / "data" / "other.json")
    assert main(["train", "--resume", str(there / "run"), *HERE]) == 1
    assert "name their place with --data" in capsys.readouterr().err


def test_finished_run_takes_more_epochs(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert begin(demo, run) == 0
    capsys.readouterr()

    assert main(["train", "--resume", str(run), "--epochs", "3", *HERE]) == 0

    said = capsys.readouterr().err
    assert "epochs: 3 instead of 2" in said
    assert "goes on in epoch 3 of 3" in said
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert TrainingConfig.from_json((run / "config.json").read_text()).epochs == 3


def test_fewer_epochs_than_are_done_are_refused_and_change_nothing(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert begin(demo, run) == 0
    before = (run / "config.json").read_text()
    capsys.readouterr()

    assert main(["train", "--resume", str(run), "--epochs", "1", *HERE]) == 1

    said = capsys.readouterr().err
    assert "which are 2 epochs of these data: more than 1; give --epochs 2 or more" in said
    assert (run / "config.json").read_text() == before
    assert main(["train", "--resume", str(run), *HERE]) == 0


def test_settings_that_decide_the_numbers_stay(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path / "run").create(config(demo).to_json())
    resume = ["train", "--resume", str(tmp_path / "run")]

    assert main([*resume, "--epochs", "9", "--seed", "3", "--hue", "2", "--split", "x"]) == 1
    assert "leave out --hue, --seed, --split" in capsys.readouterr().err
    assert main([*resume, "--val", "0.5"]) == 1
    assert "takes paths for --data and --val" in capsys.readouterr().err


def config(folder: Path) -> TrainingConfig:
    return TrainingConfig(
        variant="nano",
        data=DataSource(folder / "train.json", folder / "images"),
        validation=DataSource(folder / "val.json", folder / "images", split="val"),
        height=64,
        width=64,
        augmentation=Augmentation(),
    )


def test_validation_data_move_together_with_the_others(demo: Path, tmp_path: Path) -> None:
    before = config(tmp_path / "gone")

    moved = with_moved_data(before, DataSource(demo / "train.json"), None)

    assert moved.validation == DataSource(demo / "val.json", demo / "images", split="val")
    assert len(list(changes(before, moved))) == 2
    elsewhere = with_moved_data(before, None, DataSource(demo / "train.json"))
    assert (elsewhere.data, elsewhere.validation.path) == (before.data, demo / "train.json")
    drawn = replace(before, data=DrawnBarcodes(5))
    with pytest.raises(ModelExportError, match="draws its pictures"):
        with_moved_data(drawn, DataSource(demo), None)


def first_with(data: CheckedImages, **changed: object) -> CheckedImages:
    images: tuple[AnnotatedImage, ...] = (replace(data.images[0], **changed), *data.images[1:])
    return replace(data, images=images)


def test_other_data_are_refused_by_what_differs(demo: Path, tmp_path: Path) -> None:
    data = check_images(read_annotations(demo / "train.json"))
    val = check_images(read_annotations(demo / "val.json"))
    folder = RunFolder(tmp_path)
    refuse_other_data(folder, identities(data, val))  # as in a run of an earlier release
    before = identities(data, val)
    folder.data.write_text(identities_text(before))
    elsewhere = replace(
        data,
        images=tuple(replace(each, path=Path("/x") / each.path.name) for each in data.images),
    )

    refuse_other_data(folder, identities(elsewhere, val))

    first = data.images[0]
    others = {
        "training: boxes changed": first_with(data, boxes_xyxy=first.boxes_xyxy + 1),
        "training: images are missing": first_with(data, path=Path("new.png")),
        "training: the classes were": replace(data, class_names=("a", "b", "c")),
        "training: image files changed": replace(data, digests=("0", *data.digests[1:])),
    }
    for said, other in others.items():
        with pytest.raises(ModelExportError, match=said):
            refuse_other_data(folder, identities(other, val))
    with pytest.raises(ModelExportError, match="validation: images are missing"):
        refuse_other_data(folder, identities(data, data))
    folder.data.write_text("[]")
    with pytest.raises(ModelExportError, match="is damaged"):
        refuse_other_data(folder, before)


def test_identities_survive_json(demo: Path) -> None:
    data = check_images(read_annotations(demo / "val.json"))
    known = identities(data, data)
    assert read_identities(json.dumps(json.loads(identities_text(known)))) == known
