"""The command line speaks in one line, and needs only what the command needs."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import onnx
import pytest

from model_export import __main__ as cli
from model_export.commands import adopt
from model_export.commands.arguments.contract_arguments import pixel_values
from model_export.errors import ModelExportError
from model_export.graphs.pixel_values import LEGACY, PixelValues
from service.core.contract import ModelContract
from support.commands import bound
from support.onnx_models import calm_yolox_model as tiny_yolox_model

COMMANDS = (
    *("fetch", "adopt", "export", "evaluate", "demo-data", "inspect", "convert", "preview"),
    "train",
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model of 80 classes in the current folder."""
    monkeypatch.chdir(tmp_path)
    onnx.save(tiny_yolox_model(num_classes=80), "my_model.onnx")
    return Path("my_model.onnx")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0

    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_no_optional_package(command: str) -> None:
    blocked = "httpx2 onnx onnxruntime onnxscript platformdirs pycocotools torch".split()
    code = f"""
import sys
sys.modules.update(dict.fromkeys({blocked}))
from model_export.__main__ import main
sys.exit(main([{command!r}, "--help"]))
"""
    finished = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )

    assert (finished.returncode, finished.stderr) == (0, "")
    assert "Usage:" in finished.stdout
    assert "Example:" in finished.stdout


def test_onnxruntime_leaves_no_telemetry_behind(source: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    options = ["adopt", "my_model.onnx", "--preprocessing", "yolox", "--force"]
    code = f"from model_export.__main__ import main; main({options})"
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[1])

    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)

    assert Path("models/my-model.onnx").is_file()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("onnx", "fetch"),
        ("onnxruntime", "cpu"),
        ("numpy.strange", "fetch"),
        ("zxingcpp", "barcodes"),
        ("torch", "train"),
    ],
)
def test_missing_package_is_one_line_that_names_the_extra(
    package: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("model_export.adoption.adopt.adopt", run)

    assert cli.main(["adopt", "my_model.onnx"]) == 1
    message = f"error: `adopt` needs the package {package}: pip install 'yolox-serve[{extra}]'\n"
    assert capsys.readouterr().err == message


def test_ctrl_c_exits_130_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model_export.adoption.adopt.adopt", run)

    assert cli.main(["adopt", "my_model.onnx"]) == 130
    assert capsys.readouterr() == ("", "")


def test_adopt_prints_only_the_path(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["adopt", str(source), "--preprocessing", "yolox", "--force"]) == 0

    captured = capsys.readouterr()
    assert captured.out == "models/my-model.onnx\n"
    assert "any batch size" in captured.err
    assert "COCO's 80" in captured.err
    assert "any size in multiples of 32" in captured.err
    assert Path("models/my-model.onnx").is_file()


def test_adopt_takes_every_option(source: Path) -> None:
    Path("names.txt").write_text("\n".join(f"class {i}" for i in range(80)))
    options = (
        "--output out.onnx --names names.txt --name mine --model-version 3 --color RGB "
        "--score-activation logits --box-coding anchor_point --value-range -1 1 "
        "--confidence 0.25 --score-by joint --nms hard --iou 0.6 --sigma 0.4 --class-agnostic "
        "--keep-graph --source here --dataset photos --metrics good --licence MIT --fixed-size "
        "--force"
    ).split()

    assert cli.main(["adopt", str(source), *options]) == 0
    metadata = {entry.key: entry.value for entry in onnx.load("out.onnx").metadata_props}
    contract = ModelContract.from_metadata(metadata)
    assert (contract.name, contract.version, contract.class_names[0]) == ("mine", "3", "class 0")
    assert (contract.input.color_order, contract.input.value_range) == ("RGB", (-1.0, 1.0))
    assert contract.box_coding == "anchor_point"
    assert not contract.input.dynamic_size
    assert (contract.recommended.confidence, contract.recommended.class_agnostic) == (0.25, True)
    assert (contract.provenance.source, contract.provenance.licence) == ("here", "MIT")


def test_error_of_several_lines_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise ModelExportError("first\n  second")

    monkeypatch.setattr("model_export.adoption.adopt.adopt", run)

    assert cli.main(["adopt", "my_model.onnx"]) == 1
    assert capsys.readouterr().err == "error: first second\n"


def test_one_side_is_that_of_a_square(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(tiny_yolox_model(num_classes=80, dynamic_size=True), "open.onnx")

    assert (
        cli.main(["adopt", "open.onnx", "--size", "96", "--preprocessing", "yolox", "--force"]) == 0
    )
    metadata = {entry.key: entry.value for entry in onnx.load("models/open.onnx").metadata_props}
    image = ModelContract.from_metadata(metadata).input
    assert (image.height, image.width) == (96, 96)


@pytest.mark.parametrize("size", ["64.5", "axb", "1x2x3"])
def test_size_that_is_no_size_is_a_usage_error(
    size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["adopt", "my_model.onnx", "--size", size]) == 2
    assert "is not N or HxW" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ("", None),
        ("--preprocessing yolox", PixelValues()),
        ("--preprocessing legacy", LEGACY),
        ("--color RGB", PixelValues("RGB")),
        ("--value-range -1 1", PixelValues("BGR", (-1.0, 1.0))),
        ("--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225", LEGACY),
        (
            "--color BGR --mean 104 117 123",
            PixelValues("BGR", (0.0, 255.0), (104.0, 117.0, 123.0)),
        ),
    ],
)
def test_pixel_values_are_stated_by_name_or_number(
    options: str, values: PixelValues | None
) -> None:
    given = bound(adopt.run, "model.onnx", *options.split())
    given.apply_defaults()

    assert pixel_values(given.arguments["pixels"]) == values


def test_a_name_and_numbers_are_not_stated_both(source: Path) -> None:
    assert cli.main(["adopt", str(source), "--preprocessing", "legacy", "--color", "RGB"]) == 1


def test_picture_shows_what_is_found(source: Path) -> None:
    options = ["--preprocessing", "yolox", "--force", "--picture", "found.png"]

    assert cli.main(["adopt", str(source), *options]) == 0
    assert cv2.imread("found.png").shape == (64, 64, 3)
