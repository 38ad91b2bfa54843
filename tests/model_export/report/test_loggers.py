"""MLflow and Weights & Biases receive the numbers of a training; both packages are optional."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.data.annotations import AnnotatedImage
from model_export.measure.coco import METRIC_NAMES, Metrics
from model_export.report.events import EpochEnded, LossValues, RunStarted, StepsTaken
from model_export.report.label_plots import place_counts, plot_labels, sides
from model_export.report.loggers.services import Mlflow, Service, ServiceLogger, Wandb, services

LOSSES = LossValues(5.0, 2.0, 1.0, 1.5, 0.5, 3.5)
CONFIG = json.dumps({"variant": "nano", "augmentation": {"hue": 5}})


class Kept:
    """A service that keeps everything."""

    def __init__(self) -> None:
        self.settings: dict[str, object] = {}
        self.values: dict[int, dict[str, float]] = {}
        self.open_ = False

    def open(self, settings: Mapping[str, object]) -> None:
        self.settings, self.open_ = dict(settings), True

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.values.setdefault(step, {}).update(values)

    def close(self) -> None:
        assert self.open_
        self.open_ = False


def log(service: Service, first_step: int = 0) -> None:
    """An epoch of two steps."""
    logger = ServiceLogger(service, CONFIG)
    logger.started(RunStarted(3, 2, first_step, 4))
    metrics = Metrics({**dict.fromkeys(METRIC_NAMES), "AP": 0.25}, {"red: cell?": 0.5})
    logger.stepped(StepsTaken(first_step + 1, 0.01, LOSSES, 30.0))
    logger.epoch_ended(EpochEnded(first_step // 2, 0.01, LOSSES, 1.0, 30.0, metrics))
    logger.epoch_ended(EpochEnded(first_step // 2, 0.01, LOSSES, 1.0, 30.0, None))
    logger.ended()
    logger.ended()


def test_service_gets_settings_losses_and_metrics_by_step() -> None:
    kept = Kept()
    log(kept)
    assert kept.settings == {"variant": "nano", "augmentation.hue": 5}
    assert list(kept.values) == [1]
    numbers = kept.values[1]
    assert (numbers["losses/total"], numbers["losses/l1"], numbers["rate"]) == (5.0, 0.5, 0.01)
    assert (numbers["metrics/AP"], numbers["AP_by_class/red:_cell?"]) == (0.25, 0.5)
    assert "metrics/AP50" not in numbers
    assert not kept.open_


class FakeMlflow:
    """The part of `MlflowClient` that is used, with runs in memory."""

    runs: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - one server for all clients
    uris: list[str] = []  # noqa: RUF012 - as above

    def __init__(self, tracking_uri: str) -> None:
        self.uris.append(tracking_uri)

    def get_experiment_by_name(self, _name: str) -> None:
        return None

    def create_experiment(self, _name: str) -> str:
        return "7"

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        run = f"{experiment}-{run_name}"
        self.runs[run] = {"params": {}, "metrics": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def update_run(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status

    def log_param(self, run: str, name: str, value: str) -> None:
        self.runs[run]["params"][name] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.runs[run]["metrics"][name, step] = value

    def set_terminated(self, run: str) -> None:
        self.runs[run]["status"] = "FINISHED"


def test_resumed_run_goes_on_in_the_same_run_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=FakeMlflow))

    log(Mlflow(tmp_path))
    log(Mlflow(tmp_path), first_step=2)

    assert FakeMlflow.uris[-1] == (tmp_path / "mlflow").as_uri()
    [run] = FakeMlflow.runs.values()
    assert run["params"] == {"variant": "nano", "augmentation.hue": "5"}
    assert run["metrics"]["metrics/AP", 3] == 0.25
    assert run["metrics"]["AP_by_class/red__cell_", 1] == 0.5
    assert run["status"] == "FINISHED"


def test_resumed_run_has_the_id_of_the_first_and_stays_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    written: list[tuple[int, dict[str, float]]] = []

    def init(**given: Any) -> SimpleNamespace:
        begun.append(given)
        return SimpleNamespace(
            log=lambda values, step: written.append((step, values)), finish=lambda: None
        )

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))

    log(Wandb(tmp_path))
    log(Wandb(tmp_path), first_step=2)

    assert begun[0]["id"] == begun[1]["id"]
    assert {each["mode"] for each in begun} == {"offline"}
    assert begun[0]["config"]["augmentation.hue"] == 5
    assert [step for step, _ in written] == [1, 1, 3, 3]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_missing_package_is_told_with_its_extra_before_the_data_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    files = ("--data", str(tmp_path / "none.json"), "--val", str(tmp_path / "none.json"))
    run = ("--output", str(tmp_path / "run"), "--device", "cpu", "--log", name)

    assert main(["train", *files, *run]) == 1

    said = capsys.readouterr().err
    assert f"needs the package {name}: pip install 'yolox-serve[{name}]'" in said
    assert not (tmp_path / "run").exists()


def test_real_mlflow_keeps_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for step in (0, 2):
        log(*services(["mlflow"], tmp_path), first_step=step)

    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("yolox-serve").experiment_id])
    assert run.data.params["augmentation.hue"] == "5"
    history = client.get_metric_history(run.info.run_id, "losses/total")
    assert [(each.step, each.value) for each in history] == [(1, 5.0), (3, 5.0)]
    assert run.info.status == "FINISHED"


@pytest.mark.heavy
def test_real_wandb_writes_a_run_to_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    log(*services(["wandb"], tmp_path))

    [file] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert file.stat().st_size > 0


def boxes(*rows: tuple[float, float, float, float]) -> AnnotatedImage:
    ids = np.zeros(len(rows), np.int64)
    return AnnotatedImage(Path("a"), 1, (100, 200), np.array(rows, np.float32).reshape(-1, 4), ids)


def test_objects_are_counted_by_size_and_place(tmp_path: Path) -> None:
    image = boxes((0, 0, 20, 20), (180, 80, 200, 100))

    # The letterbox halves a picture of 200 x 100 to fill 100 x 100.
    assert sides([image, boxes()], (100, 100)).tolist() == [10, 10]
    places = place_counts([image, boxes()])
    assert places.sum() == 2
    assert places[2, 1] == places[21, 22] == 1

    names = ["$a_b$", "never"]
    for train in ([image], [boxes()]):
        plot_labels(train, [image], names, (100, 100), tmp_path / "labels.png")
        with Image.open(tmp_path / "labels.png") as drawn:
            assert np.mean(np.asarray(drawn.convert("L")) < 250) > 0.02
