"""`python -m model_export train`, as a person runs it."""

import csv
import json
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, replace
from io import StringIO
from pathlib import Path

import onnx
import pytest

from model_export.__main__ import main
from model_export.commands.arguments.sample_arguments import AugmentationOptions, augmentation
from model_export.data.sources import DataSource
from model_export.drawing.demo_data import barcodes, shapes, write_demo_data
from model_export.measure.coco import Metrics
from model_export.model.checkpoint import read_state_dict
from model_export.model.yolox import build
from model_export.report.run_folder import RunFolder
from model_export.samples.settings import augmentation_for
from model_export.training.config import DrawnBarcodes, TrainingConfig
from service.core.contract import ModelContract
from service.models.defaults import default_options
from service.settings import Settings
from support.servers import server

TINY = (
    *("--size", "64", "--batch-size", "4", "--multiscale", "0", "--workers", "0"),
    *("--device", "cpu", "--mosaic", "0"),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo_data(folder, shapes(64, 0), train=8, val=3)
    return folder


def new_run(demo: Path, output: Path, *more: str) -> list[str]:
    data = ["--data", str(demo / "train.json"), "--val", str(demo / "val.json")]
    return ["train", *data, "--output", str(output), *TINY, *more]


def contract_of(run: Path) -> ModelContract:
    """The contract of a run's exported model."""
    entries = onnx.load(run / "model.onnx").metadata_props
    return ModelContract.from_metadata({entry.key: entry.value for entry in entries})


@dataclass(frozen=True)
class Finished:
    """A run of two epochs: its exit code, its folder, and what the command said."""

    code: int
    output: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def finished(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    output = tmp_path_factory.mktemp("finished") / "run"
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        code = main(new_run(demo, output, "--epochs", "2", "--closing-epochs", "1"))
    return Finished(code, output, stdout.getvalue(), stderr.getvalue())


def test_run_leaves_everything_that_is_promised(finished: Finished) -> None:
    output = finished.output
    assert finished.code == 0
    assert finished.stdout.splitlines() == [str(output)]
    assert "8 images" in finished.stderr
    assert "epoch 2/2" in finished.stderr
    names = {path.name for path in output.iterdir()}
    assert names == {
        *(
            "config.json",
            "data.json",
            "labels.png",
            "metrics.json",
            "metrics.csv",
            "losses.png",
            "ap.png",
            "pr.png",
        ),
        *("confidence.png", "confusion.png", "report.html"),
        *("best.pth", "last.pth", "model.onnx", "tensorboard"),
    }
    with (output / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    config = json.loads((output / "config.json").read_text())
    assert (config["epochs"], config["height"], config["seed"]) == (2, 64, 0)


def test_exported_model_says_what_it_is(finished: Finished) -> None:
    contract = contract_of(finished.output)

    assert contract.name == "yolox-nano"
    assert contract.class_names == ("circle", "square", "triangle")
    size = contract.input
    assert (size.height, size.width, size.dynamic_size) == (64, 64, True)
    assert contract.provenance.dataset == "train.json"
    assert contract.provenance.metrics.endswith("on val.json")


@pytest.mark.heavy
def test_settings_reach_the_configuration_the_weights_and_the_model(
    demo: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    given = (
        "--size 64x96 --fixed-size --head coupled --loss article --class-weight 2.5 "
        "--box-coding anchor_point --center-radius 2.5 "
        "--epochs 2 --closing-epochs 1 --warmup-epochs 0.25 "
        "--accumulate 2 --rate-per-image 0.0003 --weight-decay 0.002 --average-decay 0.99 "
        "--average-ramp 50 --norm-images 4 --evaluate-every 2 --seed 5 --mosaic 0.25 "
        "--mixup 0.125 --affine 0.875 --rotation 3 --scale 0.75 1.25 --flip 0.375 "
        "--vertical-flip 0.5 --hsv 0.625 --multiscale 1"
    )

    assert main(new_run(demo, output, *given.split())) == 0

    config = TrainingConfig.from_json((output / "config.json").read_text())
    assert config == TrainingConfig(
        variant="nano",
        data=DataSource(demo / "train.json"),
        validation=DataSource(demo / "val.json", split="val"),
        height=64,
        width=96,
        augmentation=replace(
            augmentation_for("nano"),
            mosaic_probability=0.25,
            mixup_probability=0.125,
            affine_probability=0.875,
            rotation_degrees=3.0,
            scale=(0.75, 1.25),
            flip_probability=0.375,
            vertical_flip_probability=0.5,
            hsv_probability=0.625,
            multiscale_steps=1,
        ),
        head="coupled",
        loss="article",
        class_weight=2.5,
        box_coding="anchor_point",
        center_radius=2.5,
        epochs=2,
        closing_epochs=1,
        warmup_epochs=0.25,
        batch_size=4,
        accumulate=2,
        rate_per_image=0.0003,
        weight_decay=0.002,
        average_decay=0.99,
        average_ramp=50,
        norm_images=4,
        evaluate_every=2,
        seed=5,
        fixed_size=True,
    )
    contract = contract_of(output)
    size = contract.input
    assert contract.box_coding == "anchor_point"
    assert (size.height, size.width, size.dynamic_size) == (64, 96, False)
    coupled = build("nano", 3, "coupled").state_dict()
    assert read_state_dict(output / "best.pth").keys() == coupled.keys()


@pytest.mark.heavy
def test_checkpoint_needs_no_words_to_be_exported_measured_and_trained_further(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    given = "--size 64x96 --fixed-size --head coupled --box-coding anchor_point --variant pico"
    assert main(new_run(demo, output, *given.split(), "--epochs", "1")) == 0
    first = contract_of(output)
    (output / "model.onnx").unlink()

    assert main(["export", "--run", str(output)]) == 0

    assert contract_of(output) == first
    best = json.loads((output / "metrics.json").read_text())["best"]["overall"]
    weights = ("--weights", str(output / "best.pth"))
    again = measured(demo / "val.json", tmp_path / "again.json", *weights, "--letterbox", "square")
    assert again.overall["AP"] == pytest.approx(best["AP"], abs=1e-6)
    further = new_run(demo, tmp_path / "further", "--epochs", "1", *weights)
    place = further.index("--size")
    assert main(further[:place] + further[place + 2 :]) == 0
    config = TrainingConfig.from_json((tmp_path / "further" / "config.json").read_text())
    assert (config.variant, config.head, config.box_coding) == ("pico", "coupled", "anchor_point")
    assert (config.height, config.width) == (64, 96)
    assert "loaded" in capsys.readouterr().err


def test_export_of_a_run_without_a_measured_epoch_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").touch()
    assert main(["export", "--run", str(tmp_path)]) == 1
    assert "has no best.pth: no epoch has been measured yet" in capsys.readouterr().err


@pytest.mark.heavy
def test_drawn_barcodes_are_learnt_from_without_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_demo_data(tmp_path / "data", barcodes(1), train=0, val=6)
    output, val = tmp_path / "run", tmp_path / "data" / "val.json"
    data = ["--data", "barcodes:8", "--val", str(val), "--output", str(output)]

    assert main(["train", *data, *TINY, "--epochs", "2"]) == 0

    assert "8 pictures of barcodes drawn for each epoch" in capsys.readouterr().err
    contract = contract_of(output)
    assert contract.class_names == ("qr_code", "data_matrix", "aztec", "pdf417", "linear")
    assert contract.provenance.dataset == "barcodes"


def test_a_training_on_files_needs_no_packages_of_barcodes() -> None:
    code = "import sys, model_export.training.run; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert not {"zxingcpp", "skimage"} & set(loaded.stdout.split())


def test_second_run_into_a_folder_is_refused(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(tmp_path / "run").create("{}")

    assert main(new_run(demo, tmp_path / "run", "--epochs", "1")) == 1
    said = capsys.readouterr().err
    assert "holds a run already" in said
    assert "8 images" not in said, "the data was read for nothing"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "x", "--data", "a.json"], "--val"),
        (["--output", "x", "--data", "barcodes:9"], "--val"),
        (["--resume", "x"], "holds no run"),
        (["--resume", "x", "--seed", "3"], "leave out --seed"),
        (["--output", "x", "--data", "a.json", "--val", "b.json"], "a.json"),
        (["--output", "x", "--data", ".", "--mosaic", "2"], "--mosaic cannot be 2"),
        (["--output", "x", "--data", ".", "--epochs", "2", "--closing-epochs", "3"], "closing"),
        (["--output", "x", "--data", ".", "--rotation", "inf"], "--rotation cannot be inf"),
        (["--output", "x", "--data", ".", "--scale", "0.5", "inf"], "--scale cannot be"),
        (["--output", "x", "--data", ".", "--mosaic", "0", "--mixup", "1"], "without mosaics"),
        (
            ["--output", "x", "--data", ".", "--mosaic", "0", "--rotation", "5"],
            "without --mosaic or --affine",
        ),
        (["--output", "x", "--data", ".", "--mosaic", "0", "--scale", "1", "2"], "--scale does"),
        (["--output", "x", "--data", "barcodes:9", "--val", "a", "--mixup", "1"], "drawn pictures"),
        (["--output", "x", "--data", ".", "--size", "32", "--batch-size", "1"], "batch norms"),
    ],
)
def test_senseless_request_is_an_error_that_says_why(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["train", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_new_run_without_data_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--output", "x"]) == 2
    assert "needs --data" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_options_that_change_nothing_already_are_taken() -> None:
    calm = augmentation_for("pico")
    nothing = AugmentationOptions(mosaic=0.0, mixup=0.0, rotation=0.0)
    expected = replace(calm, mosaic_probability=0.0, mixup_probability=0.0, rotation_degrees=0.0)
    assert augmentation(nothing, [DrawnBarcodes(9)], "pico") == expected

    moved = AugmentationOptions(mosaic=0.0, affine=0.5, rotation=5.0, scale=(1.0, 1.5))
    assert augmentation(moved, [Path()], "pico").scale == (1.0, 1.5)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--accumulate", "3"], "a batch of 4 cannot be computed in 3 equal parts"),
        (["--cache", "{demo}/train.json"], "cannot write the cache"),
    ],
)
def test_run_that_could_not_take_a_step_leaves_no_folder(
    demo: Path, tmp_path: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [part.format(demo=demo) for part in more]

    assert main(new_run(demo, tmp_path / "run", *more)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_data_without_boxes_are_refused_after_their_table(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((demo / "train.json").read_text())
    (tmp_path / "none.json").write_text(json.dumps(content | {"annotations": []}))
    data = ["--data", str(tmp_path / "none.json"), "--images", str(demo)]

    run = tmp_path / "run"
    assert main(["train", *data, "--val", str(demo / "val.json"), "--output", str(run), *TINY]) == 1

    said = capsys.readouterr().err
    assert "none.json: read as COCO, by its suffix" in said
    assert "error: none of the 8 training images has a box to learn from" in said
    assert not run.exists()


@pytest.mark.heavy
def test_run_goes_on_from_another_folder_and_without_its_table(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    monkeypatch.chdir(demo)
    assert main(new_run(Path(), output, "--epochs", "2", "--evaluate-every", "2")) == 0
    best = json.loads((output / "metrics.json").read_text())["best"]
    (output / "metrics.csv").unlink()
    (output / "metrics.json").unlink()
    monkeypatch.chdir(tmp_path)

    assert main(["train", "--resume", str(output), "--device", "cpu", "--workers", "0"]) == 0
    assert best["epoch"] == 2
    assert json.loads((output / "metrics.json").read_text())["best"] == best


def test_missing_image_ends_the_command_before_there_is_a_run(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = json.loads((demo / "train.json").read_text())
    annotations["images"][3]["file_name"] = "images/gone.png"
    broken = demo / "broken.json"
    broken.write_text(json.dumps(annotations))
    arguments = new_run(demo, tmp_path / "run", "--epochs", "1")
    arguments[arguments.index("--data") + 1] = str(broken)

    assert main(arguments) == 1
    assert "gone.png: it is missing" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_fine_tuning_says_what_was_loaded(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    weights = shared_data / "weights" / "yolox_nano_state_bnfused.npz"

    assert main(new_run(demo, tmp_path / "run", "--epochs", "1", "--weights", str(weights))) == 0

    said = capsys.readouterr().err
    assert "loaded 636 of 642 tensors" in said
    assert "3 classes instead of 80" in said
    assert "measured the statistics" in said


@pytest.mark.heavy
def test_interrupted_run_says_how_to_go_on_and_does(demo: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    arguments = new_run(demo, output, "--epochs", "400", "--fixed-size")
    command = [sys.executable, "-m", "model_export", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any(line.startswith("epoch 1/400") for line in lines)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        code = process.wait(timeout=60)

    assert code == 128 + signal.SIGINT
    assert f"train --resume {output}` goes on" in said
    assert "Traceback" not in said
    # The best epoch so far can be looked at and served.
    assert contract_of(output).class_names == ("circle", "square", "triangle")
    assert (output / "ap.png").is_file()
    assert json.loads((output / "metrics.json").read_text())["best"]["epoch"] >= 1
    # The rest of 400 epochs is long: a shorter plan for what is left.
    config = json.loads((output / "config.json").read_text())
    with (output / "metrics.csv").open() as file:
        done = len(list(csv.DictReader(file)))
    config |= {"epochs": done + 2, "closing_epochs": 1, "warmup_epochs": 1}
    (output / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(output), "--device", "cpu", "--workers", "0"]) == 0
    with (output / "metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
    assert epochs == list(range(1, done + 3))
    assert not contract_of(output).input.dynamic_size


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that has learnt eight pictures by heart, and their annotations."""
    folder = tmp_path_factory.mktemp("overfitted")
    write_demo_data(folder, shapes(96, 0), train=8, val=1)
    annotations = folder / "train.json"
    command = (
        f"train --data {annotations} --val {annotations} --output {folder / 'run'} --size 96 "
        "--loss article --epochs 260 --closing-epochs 30 --warmup-epochs 10 --batch-size 8 "
        "--rate-per-image 0.0125 --average-decay 0.95 --average-ramp 20 --norm-images 64 "
        "--evaluate-every 130 --mosaic 0 --flip 0 --hsv 0 --multiscale 0 --workers 0 --device cpu"
    )
    assert main(command.split()) == 0
    return folder / "run", annotations


def measured(annotations: Path, output: Path, *what: str) -> Metrics:
    """The figures of `evaluate` for a server, a file or weights."""
    images = annotations.parent
    arguments = ["--annotations", str(annotations), "--images", str(images)]
    assert main(["evaluate", *arguments, "--metrics", str(output), *what]) == 0
    content = json.loads(output.read_text())
    return Metrics(content["overall"], content["ap_by_class"])


# The training takes two minutes on slow CPUs.
@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_handful_of_pictures_is_learnt_exported_served_and_found(
    overfitted: tuple[Path, Path], tmp_path: Path
) -> None:
    run, annotations = overfitted
    output = tmp_path / "metrics.json"

    with server(run / "model.onnx") as running:
        served = measured(annotations, output, "--server", running.url)
    trained = measured(annotations, output, "--weights", str(run / "best.pth"))

    content = json.loads((run / "metrics.json").read_text())["thresholds"]
    advice = contract_of(run).recommended
    assert asdict(advice) == content["recommended"]
    assert advice.confidence == content["overall"]["confidence"]
    assert content["overall"]["f1"] > 0.9
    assert set(content["by_class"]) == {"circle", "square", "triangle"}
    assert default_options(Settings(), contract_of(run)).confidence == advice.confidence

    assert (served.overall["AP50"] or 0) > 0.95
    assert served.overall["AP"] == pytest.approx(trained.overall["AP"], abs=0.002)
    best = json.loads((run / "metrics.json").read_text())["best"]
    assert trained.overall["AP"] == pytest.approx(best["overall"]["AP"], abs=1e-6)
