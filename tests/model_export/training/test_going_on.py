"""Early ends, frozen parts, balanced classes and batches that fit: what a run may be asked for."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_export.commands.arguments.argument_types import WrongValueError
from model_export.commands.training.options import (
    MachineOptions,
    cache_place,
    duration,
    frozen_stages,
    images_per_step,
)
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_annotations
from model_export.data.sources import DataSource
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import ModelExportError
from model_export.loss.balance import MAX_WEIGHT, balanced_weights
from model_export.loss.loss import PRESETS, DetectionLoss
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.measure.validation_data import read_validation_set
from model_export.model.batch_norm_statistics import refresh_statistics
from model_export.model.freezing import freeze
from model_export.model.yolox import build
from model_export.report.events import EpochEnded, RunStarted, StepsTaken
from model_export.samples.settings import augmentation_for
from model_export.samples.targets import Targets
from model_export.training.config import DrawnBarcodes, Machine, TrainingConfig
from model_export.training.fit_batch import LARGEST, bytes_per_image, with_fitting_batch
from model_export.training.job import Job
from model_export.training.loop import train
from model_export.training.parallel import Team
from model_export.training.signals import StopRequest
from model_export.training.step import sgd

ALONE = Team(torch.device("cpu"))


class Epochs:
    """The epochs that a training tells of."""

    def __init__(self) -> None:
        self.ended_: list[EpochEnded] = []

    def started(self, run: RunStarted) -> None:
        pass

    def sampled(self, step: int, images: torch.Tensor, targets: Targets) -> None:
        pass

    def stepped(self, steps: StepsTaken) -> None:
        pass

    def epoch_ended(self, epoch: EpochEnded) -> None:
        self.ended_.append(epoch)

    def ended(self) -> None:
        pass


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> CheckedImages:
    folder = tmp_path_factory.mktemp("pictures")
    write_demo_data(folder, shapes(64, 0), train=2, val=1)
    return check_images(read_annotations(folder / "train.json"))


def config(**changes: object) -> TrainingConfig:
    source = DataSource(Path("unused"))
    plain = TrainingConfig(
        variant="pico",
        data=source,
        validation=source,
        height=64,
        width=64,
        augmentation=replace(augmentation_for("pico"), multiscale_steps=0, mosaic_probability=0.0),
        epochs=10,
        closing_epochs=3,
        warmup_epochs=1,
        batch_size=2,
        norm_images=0,
    )
    return replace(plain, **changes)


def epochs_of(
    pictures: CheckedImages, folder: Path, aps: Callable[[int], float], **changes: int
) -> list[int]:
    """The numbers of the epochs that a run takes, given the AP of each that is measured."""
    diary, count = Epochs(), iter(range(1000))
    job = Job(
        config(**changes),
        Machine("cpu", 0),
        pictures,
        folder / "last.pth",
        folder / "best.pth",
    )

    def measure(_model: nn.Module) -> Metrics:
        return Metrics({**dict.fromkeys(METRIC_NAMES), "AP": aps(next(count))}, {})

    model = build("pico", len(pictures.class_names))
    assert train(job, model, measure, diary, ALONE, StopRequest())
    return [epoch.number for epoch in diary.ended_]


def test_patience_leads_to_the_closing_epochs_and_then_to_the_end(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    # The AP falls from the first epoch on, and again from the first closing one on.
    assert epochs_of(pictures, tmp_path, lambda n: 1 / (n + 1), patience=2) == [0, 1, 2, 7, 8]
    saved = torch.load(tmp_path / "last.pth", weights_only=True)["training"]
    assert (saved["step"], saved["best_epoch"]) == (10, 0)


def test_rising_ap_needs_no_patience(pictures: CheckedImages, tmp_path: Path) -> None:
    assert epochs_of(pictures, tmp_path, lambda n: n, patience=1, epochs=4) == [0, 1, 2, 3]


def test_patience_without_closing_epochs_is_the_end(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    changes = {"patience": 1, "closing_epochs": 0, "evaluate_every": 2}
    assert epochs_of(pictures, tmp_path, lambda _: 0.5, **changes) == [0, 1, 2, 3]


def test_time_limit_requests_a_stop() -> None:
    assert not StopRequest().made
    assert not StopRequest(1000).made
    request = StopRequest(0)
    assert (request.made, request.time_is_up, request.number) == (True, True, 0)
    request.number = signal.SIGINT
    assert request.made


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("1h30m", 5400), ("0.5d", 43200)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["90", "1 h", "h", "1h30", ""])
def test_time_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(WrongValueError, match="such as 90m"):
        duration(text)


def test_words_and_numbers_of_options() -> None:
    assert [frozen_stages(text) for text in ("0", "3", "backbone", "neck")] == [0, 3, 5, 6]
    for text in ("6", "head", "-1"):
        with pytest.raises(WrongValueError, match="none of backbone"):
            frozen_stages(text)
    assert (images_per_step("auto"), images_per_step("8")) == ("auto", 8)
    assert (cache_place("ram"), cache_place("x")) == ("ram", Path("x"))
    assert MachineOptions(workers=3).machine(None, fit_batch=True).fit_batch


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patience": 0}, "patience"),
        ({"freeze": 3}, "freeze needs weights"),
        ({"freeze": 7, "weights": Path("a.pth")}, "within 0 and 6"),
        ({"balance": -1.0}, "balance"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelExportError, match=said):
        config(**changes)


@pytest.mark.parametrize(("stages", "learning"), [(2, "backbone.backbone.dark3"), (6, "head")])
def test_frozen_parts_keep_weights_and_statistics(stages: int, learning: str) -> None:
    torch.manual_seed(0)
    model = build("pico", 2)
    freeze(model, stages)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = sgd(model, rate=0.1)

    model(torch.rand(2, 3, 64, 64) * 255).sum().backward()
    optimizer.step()
    refresh_statistics(model, [torch.rand(2, 3, 64, 64) * 255])

    changed = {name for name, value in model.state_dict().items() if (value != before[name]).any()}
    first = ("backbone.backbone.stem", "backbone.backbone.dark2")
    frozen = first if stages == 2 else ("backbone",)
    assert not any(name.startswith(frozen) for name in changed)
    assert any(name.startswith(learning) for name in changed)


def test_model_without_a_neck_can_be_frozen() -> None:
    model = build("darknet53-article", 1)
    freeze(model, 5)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "head"
    }


def test_rare_classes_weigh_more() -> None:
    boxes = np.array([900, 100, 0])

    weights = balanced_weights(boxes, 0.5)

    assert weights[1] / weights[0] == pytest.approx(3)
    assert (weights * boxes).sum() == pytest.approx(boxes.sum())
    assert weights[2] == 1
    assert balanced_weights(np.array([100_000, 1]), 1).tolist()[1] == MAX_WEIGHT


def test_class_loss_follows_the_weights_of_the_classes() -> None:
    torch.manual_seed(0)
    raw = torch.randn(1, 84, 5 + 2)
    targets = Targets(torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]), torch.tensor([[1]]))
    plain = DetectionLoss(PRESETS["yolox"])(raw, targets, 64, 64)
    weights = torch.tensor([7.0, 3.0])
    heavy = DetectionLoss(PRESETS["yolox"], class_weights=weights)(raw, targets, 64, 64)

    assert heavy.classification == pytest.approx(3 * plain.classification.item(), rel=1e-5)
    assert heavy.box == plain.box


def test_weights_come_from_the_data_that_are_counted(
    pictures: CheckedImages, tmp_path: Path
) -> None:
    job = Job(config(), Machine(), pictures, tmp_path / "l", tmp_path / "b")
    assert job.class_weights() is None
    weights = replace(job, config=config(balance=1.0)).class_weights()
    assert weights is not None
    assert weights.tolist() == balanced_weights(pictures.class_counts(), 1.0).tolist()

    class Drawn:
        class_names = ("a",)

    drawn = replace(job, config=config(balance=1.0, data=DrawnBarcodes(3)), data=Drawn())
    with pytest.raises(ModelExportError, match="--balance needs data"):
        drawn.class_weights()


def test_one_class_stands_for_all(pictures: CheckedImages) -> None:
    folder = pictures.images[0].path.parent.parent
    measured = read_validation_set(DataSource(folder / "train.json"), pictures.class_names)

    one = measured.as_one_class("object")

    assert one.checked.class_names == ("object",)
    assert one.checked.class_counts().tolist() == [pictures.class_counts().sum()]
    assert one.coco.categories == {1: "object"}
    entries = one.coco.truth.dataset["annotations"]
    assert len(entries) == pictures.class_counts().sum()
    assert {entry["category_id"] for entry in entries} == {1}


def test_step_takes_the_memory_of_the_largest_size() -> None:
    network = build("pico", 2)
    plain = bytes_per_image(network, config(), torch.float32)
    augmentation = replace(config().augmentation, multiscale_steps=1)
    larger = bytes_per_image(network, config(augmentation=augmentation), torch.float32)

    # Four bytes for each of some tens of channels at half and quarter of the size, at least.
    assert plain > 64 * 64 * 4 * 10
    assert larger / plain == pytest.approx((96 / 64) ** 2, rel=0.05)


def test_batch_fits_into_the_memory_that_is_free(
    pictures: CheckedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(pictures, images=pictures.images * 100)
    fitting = "model_export.training.fit_batch.available_memory"

    def batch(free: int | None, data: CheckedImages = many, **changes: int) -> int:
        monkeypatch.setattr(fitting, lambda: free)
        return with_fitting_batch(config(**changes), data, ALONE)[0].batch_size

    per_image = bytes_per_image(build("pico", 3), config(), torch.float32)
    weights = 4 * 4 * sum(p.numel() for p in build("pico", 3).parameters())
    assert batch(int((weights + 9 * per_image) / 0.7)) == 8
    assert batch(int((weights + 9 * per_image) / 0.7), accumulate=2) == 16
    assert batch(1) == 1
    assert batch(10**15) == batch(None) == LARGEST
    assert batch(10**15, pictures) == 2
    # Processes of one machine share its memory.
    monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "2")
    assert batch(int(2 * (weights + 9 * per_image) / 0.7)) == 8


SIGNALS = """
import os, signal, time
from model_export.training.signals import stop_on_signals
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    print(stop.made)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    except KeyboardInterrupt:
        print("lost", flush=True)
    time.sleep(60)
"""


def test_a_second_signal_ends_the_process_even_if_its_exception_is_lost() -> None:
    run = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout.split()) == (128 + signal.SIGINT, ["True", "lost"])
