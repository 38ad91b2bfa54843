"""The files that a training leaves behind, and the progress that it shows."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_export.errors import ModelExportError
from model_export.measure.coco import METRIC_NAMES, RECALLS, Metrics
from model_export.report.events import (
    EpochEnded,
    LossValues,
    RunStarted,
    StepsTaken,
    Watcher,
    Watchers,
)
from model_export.report.loggers.tensorboard import MAX_SIDE, TensorBoardWriter
from model_export.report.metrics_csv import MetricsCsv
from model_export.report.plots import plot_ap, plot_losses, plot_precision_recall
from model_export.report.progress import ProgressBar
from model_export.report.run_folder import Best, RunFolder
from model_export.samples.targets import pad_targets

CLASSES = ("cat, small", "猫 $x_1$")
SHAPE = RunStarted(epochs=4, epoch_steps=5, first_step=0, batch_size=2)


def losses(total: float) -> LossValues:
    return LossValues(total, total / 2, total / 4, total / 4, 0.0, 3.5)


def metrics(ap: float) -> Metrics:
    """The second class is not annotated."""
    overall = dict.fromkeys(METRIC_NAMES, ap) | {"AP50": ap + 0.1, "AP small": None}
    curve = tuple(1 - recall / 2 for recall in RECALLS)
    first, second = CLASSES
    return Metrics(
        overall, {first: ap, second: None}, {first: ap + 0.1, second: None}, {first: curve}
    )


def epoch(number: int, measured: Metrics | None = None, total: float = 5.0) -> EpochEnded:
    return EpochEnded(number, 0.01, losses(total), 12.5, 80.0, measured)


def step(number: int) -> StepsTaken:
    return StepsTaken(number, 0.001 * number, losses(10.0 - number), 64.0)


def resumed(first_step: int) -> RunStarted:
    return RunStarted(SHAPE.epochs, SHAPE.epoch_steps, first_step, SHAPE.batch_size)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_metrics_csv(path: Path, shape: RunStarted, records: Sequence[EpochEnded]) -> MetricsCsv:
    metrics_csv = MetricsCsv(path, CLASSES)
    metrics_csv.started(shape)
    for record in records:
        metrics_csv.epoch_ended(record)
    return metrics_csv


# The folder


def test_folder_with_a_run_is_refused_for_a_new_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.create('{"epochs": 4}')
    folder.last.touch()

    with pytest.raises(ModelExportError, match="--resume continues it, or choose another --output"):
        folder.create("{}")
    assert json.loads(folder.read_config()) == {"epochs": 4}


def test_run_that_has_saved_nothing_is_not_said_to_continue(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create("{}")

    with pytest.raises(ModelExportError, match="nothing to resume yet; remove it if"):
        folder.check_free()


@pytest.mark.parametrize("name", ["last.pth", "best.pth", "metrics.csv"])
def test_any_part_of_a_run_counts_as_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()

    with pytest.raises(ModelExportError, match="holds a run already"):
        RunFolder(tmp_path).create("{}")


def test_folder_with_other_files_takes_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create("{}")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_folder_without_a_run_cannot_be_continued(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="holds no run to continue"):
        RunFolder(tmp_path).read_config()


def test_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ModelExportError, match="cannot write"):
        RunFolder(tmp_path / "file").create("{}")


# The metrics_csv


def test_each_epoch_is_a_row_as_soon_as_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics_csv = run_metrics_csv(path, SHAPE, [epoch(0), epoch(1, metrics(0.5), total=4.0)])

    first, second = rows(path)
    assert (first["epoch"], second["epoch"]) == ("1", "2")
    assert {name: float(second[name]) for name in ("loss", "box_loss", "rate", "seconds")} == {
        "loss": 4.0,
        "box_loss": 2.0,
        "rate": 0.01,
        "seconds": 12.5,
    }
    assert (second["AP"], second["AP small"], second["images_per_second"]) == ("0.5", "", "80.0")
    assert (second["AP of cat, small"], second["AP50 of cat, small"]) == ("0.5", "0.6")
    assert second[f"AP of {CLASSES[1]}"] == ""
    assert {first[name] for name in METRIC_NAMES} == {""}
    assert [record.number for record in metrics_csv.epochs] == [0, 1]


def test_resumed_run_takes_over_the_epochs_before_it_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    before = run_metrics_csv(
        path, SHAPE, [epoch(0), epoch(1, metrics(0.5)), epoch(2, metrics(0.6))]
    )
    # Step 12 of 5 an epoch: the third epoch is under way.
    after = run_metrics_csv(path, resumed(12), [epoch(2, metrics(0.7)), epoch(3, metrics(0.8))])

    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3", "4"]
    assert [row["AP"] for row in rows(path)] == ["", "0.5", "0.7", "0.8"]
    assert after.epochs[:2] == before.epochs[:2]


def test_new_run_takes_over_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run_metrics_csv(path, SHAPE, [epoch(0), epoch(1)])

    assert run_metrics_csv(path, SHAPE, []).epochs == []
    assert rows(path) == []


def test_loss_that_is_no_number_survives_a_resumption(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run_metrics_csv(path, SHAPE, [epoch(0, total=math.nan)])

    (record,) = run_metrics_csv(path, resumed(5), []).epochs
    assert math.isnan(record.losses.total)


def test_half_a_row_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run_metrics_csv(path, SHAPE, [epoch(0), epoch(1)])
    path.write_text(path.read_text()[:-40])

    run_metrics_csv(path, resumed(10), [epoch(2)])
    assert [row["epoch"] for row in rows(path)] == ["1", "3"]


def test_file_of_other_classes_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run_metrics_csv(path, SHAPE, [epoch(0)])
    content = path.read_bytes()

    with pytest.raises(ModelExportError, match="other columns"):
        MetricsCsv(path, ("dog",)).started(resumed(5))
    assert path.read_bytes() == content


def test_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    run_metrics_csv(path, SHAPE, [epoch(0)])
    path.write_text(path.read_text().replace("12.5", "many"))

    with pytest.raises(ModelExportError, match="damaged"):
        MetricsCsv(path, CLASSES).started(resumed(5))


# The end of a run


def test_finished_run_has_its_metrics_and_plots(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    epochs = [epoch(0, total=math.inf), epoch(1, metrics(0.5)), epoch(2, metrics(0.4))]
    folder.finish(epochs, Best(1, metrics(0.5)))

    content = json.loads(folder.metrics_json.read_text())
    assert (content["best"]["epoch"], content["best"]["overall"]["AP50"]) == (2, 0.6)
    assert content["best"]["ap_by_class"] == {CLASSES[0]: 0.5, CLASSES[1]: None}
    assert [entry["loss"] for entry in content["epochs"]] == [None, 5.0, 5.0]
    assert content["epochs"][0]["metrics"] is None
    assert content["epochs"][2]["metrics"]["overall"]["AP"] == 0.4
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "ap.png",
        "losses.png",
        "pr.png",
    ]


def test_run_that_was_never_measured_has_losses_alone(tmp_path: Path) -> None:
    RunFolder(tmp_path).finish([epoch(0)], None)

    assert json.loads((tmp_path / "metrics.json").read_text())["best"] is None
    assert [path.name for path in tmp_path.glob("*.png")] == ["losses.png"]


def ink(path: Path) -> float:
    """The share of pixels that are not white."""
    with Image.open(path) as image:
        return float(np.mean(np.asarray(image.convert("L")) < 250))


def test_plots_show_what_they_are_given(tmp_path: Path) -> None:
    """More curves take more ink; names with signs of formulas and foreign letters do no harm."""
    files = [tmp_path / f"{i}.png" for i in range(6)]
    plot_losses([epoch(0)], files[0])
    plot_losses([epoch(i, total=5.0 - i) for i in range(4)], files[1])
    plot_ap([epoch(0), epoch(1)], files[2])
    plot_ap([epoch(i, metrics(0.1 + 0.2 * i)) for i in range(4)], files[3])
    curve = metrics(0.5).precision_by_class[CLASSES[0]]
    plot_precision_recall(Metrics({}, {}), files[4])
    by_class: dict[str, float | None] = {CLASSES[1]: 0.5, "_hidden": 0.7}
    both = {CLASSES[1]: curve, "_hidden": [1.0] * 101}
    plot_precision_recall(Metrics({"AP50": 0.6}, by_class, by_class, both), files[5])

    for fewer, more in (files[0:2], files[2:4], files[4:6]):
        assert 0.005 < ink(fewer) < ink(more) < 0.5


def test_plot_of_many_classes_names_none_of_them(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(80)]
    curves = {name: [1 - i / 80] * 101 for i, name in enumerate(names)}
    values: dict[str, float | None] = dict.fromkeys(names, 0.5)
    plot_precision_recall(Metrics({"AP50": 0.5}, values, values, curves), tmp_path / "many.png")

    with Image.open(tmp_path / "many.png") as image:
        colors = np.asarray(image.convert("HSV"))
    assert colors[:, :, 1].max() == 0


# TensorBoard


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), {"images": 0, "scalars": 0}).Reload()


def scalars(board: EventAccumulator, tag: str) -> dict[int, float]:
    """Step to value; a step that is there twice is an error."""
    points = board.Scalars(tag)
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


def run_board(folder: Path, shape: RunStarted, steps: Sequence[int]) -> None:
    board = TensorBoardWriter(folder, CLASSES)
    board.started(shape)
    for number in steps:
        board.stepped(step(number))
        if (number + 1) % shape.epoch_steps == 0:
            board.epoch_ended(epoch(number // shape.epoch_steps, metrics(number / 100)))
    board.ended()


def test_board_has_every_number_of_a_run(tmp_path: Path) -> None:
    run_board(tmp_path, SHAPE, range(10))
    board = events(tmp_path)

    assert scalars(board, "losses/total") == {i: 10.0 - i for i in range(10)}
    assert scalars(board, "losses/box")[2] == 4.0
    assert scalars(board, "rate")[3] == pytest.approx(0.003)
    assert scalars(board, "images_per_second")[9] == 64.0
    assert scalars(board, "metrics/AP") == {4: pytest.approx(0.04), 9: pytest.approx(0.09)}
    assert scalars(board, "AP50_by_class/cat,_small")[9] == pytest.approx(0.19)
    assert not {"metrics/AP_small", f"AP_by_class/{CLASSES[1]}"} & set(board.Tags()["scalars"])


def test_board_of_a_resumed_run_has_no_step_twice(tmp_path: Path) -> None:
    run_board(tmp_path, SHAPE, range(10))
    run_board(tmp_path, resumed(8), range(8, 20))
    board = events(tmp_path)

    assert list(scalars(board, "losses/total")) == list(range(20))
    assert list(scalars(board, "metrics/AP")) == [4, 9, 14, 19]


def test_board_shows_samples_of_every_tenth_epoch(tmp_path: Path) -> None:
    images = torch.zeros(12, 3, 320, 640, dtype=torch.uint8)
    images[:, 0] = 200  # blue
    box = torch.tensor([[320.0, 160.0, 639.0, 319.0]])
    targets = pad_targets([box] * 12, [torch.tensor([1])] * 12)
    board = TensorBoardWriter(tmp_path, CLASSES)
    board.started(SHAPE)
    for number in range(0, 100, 5):
        board.sampled(number, images, targets)
    board.ended()

    shown = events(tmp_path).Images("samples")
    assert [event.step for event in shown] == [0, 50]
    with Image.open(io.BytesIO(shown[0].encoded_image_string)) as file:
        pixels = np.asarray(file)
    assert pixels.shape == (3 * 164 - 4, 3 * (MAX_SIDE + 4) - 4, 3)
    assert pixels[10, 10].tolist() == [0, 0, 200]
    # The box's left edge is in the middle of the picture.
    assert pixels[140, 160].tolist() != [0, 0, 200]
    assert pixels[140, 158].tolist() == [0, 0, 200]


# Progress


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(*, terminal: bool, width: int = 100) -> tuple[ProgressBar, Clock, io.StringIO]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text, force_terminal=terminal, force_interactive=terminal, width=width, no_color=True
    )
    return ProgressBar(console, clock), clock, text


def test_progress_elsewhere_than_on_a_terminal_is_a_line_for_each_epoch() -> None:
    bar, clock, text = progress(terminal=False, width=40)
    bar.started(SHAPE)
    for number in range(10):
        clock.now += 360
        bar.stepped(step(number))
        if number == 4:
            bar.epoch_ended(epoch(0))
    bar.epoch_ended(epoch(1, metrics(0.5)))
    bar.ended()

    numbers = "loss 5.000 (box 2.500, objectness 1.250, class 1.250, L1 0.000)  rate 1.00e-02"
    assert text.getvalue().splitlines() == [
        f"epoch 1/4  {numbers}  80.0 images/s  ETA 1:30:00",
        f"epoch 2/4  {numbers}  80.0 images/s  ETA 1:00:00  AP 0.5000  AP50 0.6000",
    ]


def test_time_left_of_a_resumed_run_counts_its_own_steps() -> None:
    bar, clock, text = progress(terminal=False)
    bar.started(resumed(10))
    clock.now += 50
    bar.epoch_ended(epoch(2))

    assert "ETA 0:00:50" in text.getvalue()


def test_progress_on_a_terminal_moves_and_keeps_a_line_for_each_epoch() -> None:
    bar, clock, text = progress(terminal=True)
    bar.started(SHAPE)
    clock.now += 10
    bar.stepped(step(0))
    moving = text.getvalue()
    bar.epoch_ended(epoch(0, metrics(0.5)))
    bar.stepped(step(5))
    bar.ended()

    for part in ("epoch 1/4", "step 1/5", "ETA 0:03:10", "loss 10.000", "64.0 images/s"):
        assert part in moving
    assert "AP" not in moving
    after = text.getvalue()[len(moving) :]
    assert after.count("epoch 1/4  loss 5.000") == 1
    assert "last AP 0.5000  AP50 0.6000" in after


def test_training_that_never_began_may_end(tmp_path: Path) -> None:
    bar, _, text = progress(terminal=True)
    watchers: list[Watcher] = [
        bar,
        TensorBoardWriter(tmp_path / "b", CLASSES),
        MetricsCsv(tmp_path / "c", CLASSES),
    ]
    Watchers(watchers).ended()

    assert text.getvalue() == ""
    assert list(tmp_path.iterdir()) == []
