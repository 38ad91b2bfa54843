"""A TOML file gives options to `train` and `preview`; flags come first."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from model_export.__main__ import main
from model_export.commands.arguments.sample_arguments import FIELDS, TrainingAugmentationOptions
from model_export.commands.training.options import ScheduleOptions
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.samples.settings import Augmentation
from model_export.training.config import TrainingConfig
from model_export.training.run import TrainingRun

OPTIONS = """
variant = "pico"
size = "64x96"
batch-size = 2
rate_per_image = 0.002
fixed_size = true
time-limit = "9h"
epochs = 7
mosaic = 0.5
mixup = 0.25
mixup-scale = [0.75, 1.25]
scale = [0.5, 2.0]
rotation = 1
shear = 3.5
translation = 0.25
affine = 0.125
flip = 0.0
hsv = 0.75
hue = 1
saturation = 2
value = 3
min_side = 4.5
min_visible = 0.375
multiscale = 0
"""


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[TrainingConfig]:
    """The configurations of trainings, which then do not begin."""
    seen: list[TrainingConfig] = []
    write_demo_data(tmp_path / "data", shapes(32, 0), train=1, val=1)
    (tmp_path / "options.toml").write_text(OPTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TrainingRun, "run", lambda self, _: seen.append(self.config) or True)
    return seen


TRAIN = ("train", "--data", "data/train.json", "--val", "data/val.json", "--output", "run")


def test_every_option_of_the_file_counts_and_flags_come_first(
    configs: list[TrainingConfig],
) -> None:
    assert main([*TRAIN, "--config", "options.toml", "--device", "cpu", "--epochs", "3"]) == 0

    [config] = configs
    assert (config.variant, config.height, config.width) == ("pico", 64, 96)
    assert (config.batch_size, config.rate_per_image, config.fixed_size) == (2, 0.002, True)
    assert config.epochs == 3
    assert config.augmentation == Augmentation(
        mosaic_probability=0.5,
        mixup_probability=0.25,
        affine_probability=0.125,
        scale=(0.5, 2.0),
        mixup_scale=(0.75, 1.25),
        rotation_degrees=1.0,
        shear_degrees=3.5,
        translation=0.25,
        flip_probability=0.0,
        hsv_probability=0.75,
        hue=1,
        saturation=2,
        value=3,
        min_side=4.5,
        min_visible=0.375,
        multiscale_steps=0,
    )


def test_a_list_of_the_file_is_whole_or_refused(
    configs: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'size = [64, 96]\nmultiscale = [1, 2]\nnames = ["circle", "square", "triangle"]\n'
    Path("lists.toml").write_text(text)
    assert main([*TRAIN, "--config", "lists.toml", "--device", "cpu"]) == 0

    [config] = configs
    assert (config.height, config.width) == (64, 96)
    assert config.augmentation.size_changes == (1, 2)
    assert config.data.class_names == ("circle", "square", "triangle")

    Path("lists.toml").write_text("epochs = [3, 4]\n")
    assert main([*TRAIN, "--config", "lists.toml"]) == 2
    assert "[3, 4] is a list; write one value" in capsys.readouterr().err


def test_of_a_flag_that_is_repeated_the_last_counts(configs: list[TrainingConfig]) -> None:
    assert main([*TRAIN, "--size", "32", "--size", "64x96", "--device", "cpu"]) == 0
    assert (configs[0].height, configs[0].width) == (64, 96)


def test_every_number_of_augmentation_is_an_option() -> None:
    assert set(FIELDS.values()) == {field.name for field in fields(Augmentation)}
    assert set(FIELDS) == {field.name for field in fields(TrainingAugmentationOptions)}


def test_options_of_the_schedule_reach_the_configuration(configs: list[TrainingConfig]) -> None:
    given = "--patience 4 --balance 0.5 --single-class --freeze 3 --batch-size auto"
    Path("w.pth").touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("model_export.commands.train._like_the_weights", lambda given: given)
        assert main([*TRAIN, *given.split(), "--weights", "w.pth", "--device", "cpu"]) == 0

    [config] = configs
    assert (config.patience, config.balance, config.single_class) == (4, 0.5, True)
    assert (config.freeze, config.batch_size) == (3, 16)
    assert TrainingConfig.from_json(json.dumps(json.loads(config.to_json()))) == config
    assert "patience" in {field.name for field in fields(ScheduleOptions)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epoch = 3", "epoch"),
        ("epochs = -3", "-3 is not positive"),
        ("mosaic = [", "cannot read wrong.toml"),
        ("[augmentation]\nmosaic = 1", "write the options without tables"),
        ('config = "other.toml"', "names another file of options"),
        ('size = "1000000"', "a side above 8192"),
        ('split = "train"', "a COCO json is one split: leave out --split"),
    ],
)
def test_wrong_file_is_one_line_that_names_the_fault(
    content: str, said: str, configs: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.toml").write_text(content)
    assert main([*TRAIN, "--config", "wrong.toml"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said in told
    assert not configs


@pytest.mark.parametrize(
    "text",
    ["mosaic=1.5", "min-visible=1.1", "shear=90", "rotation=400", "translation=5", "hue=500"],
)
def test_settings_of_augmentation_without_a_meaning_are_named_as_flags(
    text: str, configs: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.toml").write_text(text)
    assert main([*TRAIN, "--config", "wrong.toml"]) == 1
    name, value = text.split("=")
    assert f"error: --{name} cannot be {value}: it is within 0 and " in capsys.readouterr().err
    assert not configs


def test_missing_file_is_told(
    configs: list[TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--config", "none.toml"]) == 2
    assert "cannot read none.toml: No such file" in capsys.readouterr().err
    assert not configs
