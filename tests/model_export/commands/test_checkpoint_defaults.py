"""Commands take from a checkpoint what the command line leaves open."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from model_export.__main__ import main
from model_export.adoption.usual_thresholds import USUAL_THRESHOLDS
from model_export.drawing.demo_data import shapes, write_demo_data
from model_export.errors import ModelExportError
from model_export.measure import local_detector
from model_export.model.about import About, read_about
from model_export.model.yolox import build
from model_export.training.config import TrainingConfig
from model_export.training.state import save_weights
from service.core.contract import InputSpec, ModelContract, Provenance, Recommended

NAMES = ("circle", "square", "triangle")
KNOWN = ModelContract(
    name="shapes",
    version="1",
    input=InputSpec("images", 64, 96),
    class_names=NAMES,
    box_coding="anchor_point",
    recommended=Recommended(confidence=0.4, score_by="objectness", nms="soft-mean", iou=0.3),
    provenance=Provenance(dataset="train.json", metrics="AP 0.5"),
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """The best weights of a run, in its folder."""
    path = tmp_path / "run" / "best.pth"
    path.parent.mkdir()
    save_weights(build("pico", 3, "coupled"), path, About("pico", "coupled", KNOWN, {}))
    return path


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ModelContract, Path]]:
    """The contract and path of each export; nothing is written."""
    calls: list[tuple[ModelContract, Path]] = []

    def export(_model: object, contract: ModelContract, path: Path, **_: object) -> list[str]:
        calls.append((contract, path))
        return []

    monkeypatch.setattr("model_export.exporting.export.export", export)
    monkeypatch.setattr("model_export.adoption.trust.objects_on_grey", lambda *_: None)
    return calls


def test_run_is_exported_as_its_checkpoint_says(
    weights: Path, exported: list[tuple[ModelContract, Path]]
) -> None:
    assert main(["export", "--run", str(weights.parent)]) == 0

    [(contract, path)] = exported
    assert path == weights.parent / "model.onnx"
    assert (contract.name, contract.class_names) == ("shapes", NAMES)
    assert contract.input == KNOWN.input
    assert contract.box_coding == "anchor_point"
    assert (contract.recommended, contract.provenance) == (KNOWN.recommended, KNOWN.provenance)


def test_options_of_an_export_apply_on_top(
    weights: Path, exported: list[tuple[ModelContract, Path]], tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    given = f"--names {tmp_path / 'names.txt'} --size 128 --box-coding yolox --name other"
    advice = "--confidence 0.6 --source here --input float32"
    target = tmp_path / "other.onnx"

    what = ["--weights", str(weights), "--output", str(target)]
    assert main(["export", *what, *given.split(), *advice.split()]) == 0

    [(contract, path)] = exported
    assert path == target
    assert (contract.name, contract.class_names) == ("other", ("a", "b", "c"))
    size = contract.input
    assert (size.height, size.width, size.dtype, size.layout) == (128, 128, "float32", "NCHW")
    assert contract.box_coding == "yolox"
    assert contract.recommended == Recommended(0.6, "objectness", "soft-mean", 0.3)
    assert contract.provenance == Provenance("here", "train.json", "AP 0.5, at 64x96")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--weights", "{run}", "--output", "x.onnx"], "is a folder; name the file in it"),
        (["--run", "{none}"], "is not the folder of a run: it has no best.pth"),
        (["--weights", "{run}/best.pth", "--output", "/proc/x.onnx"], "/proc/x.onnx"),
    ],
)
def test_an_export_that_cannot_be_is_refused_at_once(
    given: list[str],
    complaint: str,
    weights: Path,
    exported: list[tuple[ModelContract, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "none").mkdir()
    places = {"run": weights.parent, "none": tmp_path / "none"}
    assert main(["export", *(each.format(**places) for each in given)]) == 1
    assert complaint in capsys.readouterr().err
    assert not exported


def test_a_variant_that_does_not_exist_is_told_in_words(weights: Path) -> None:
    content = torch.load(weights, weights_only=True)
    content["about"] = content["about"].replace('"pico"', '"huge"')
    torch.save(content, weights)
    with pytest.raises(ModelExportError, match=r"'huge' is none of its values$"):
        read_about(weights)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", USUAL_THRESHOLDS),
        ("--confidence 0.6", replace(USUAL_THRESHOLDS, confidence=0.6)),
        ("--box-coding anchor_point", Recommended()),
    ],
)
def test_weights_that_say_nothing_recommend_what_adopted_files_do(
    given: str,
    expected: Recommended,
    exported: list[tuple[ModelContract, Path]],
    tmp_path: Path,
) -> None:
    torch.save(build("pico", 3, "coupled").state_dict(), tmp_path / "plain.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    files = ["--weights", tmp_path / "plain.pth", "--names", tmp_path / "names.txt"]
    output = ["--output", tmp_path / "model.onnx"]

    assert main(["export", *map(str, [*files, *output]), *given.split()]) == 0

    [(contract, _)] = exported
    assert contract.recommended == expected


def test_trained_weights_without_measured_thresholds_recommend_the_usual_ones(
    exported: list[tuple[ModelContract, Path]], tmp_path: Path
) -> None:
    known = replace(KNOWN, box_coding="yolox", recommended=Recommended())
    path = tmp_path / "best.pth"
    save_weights(build("pico", 3, "coupled"), path, About("pico", "coupled", known, {}))

    assert main(["export", "--run", str(tmp_path)]) == 0

    [(contract, _)] = exported
    assert contract.recommended == USUAL_THRESHOLDS


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ("anchor_point", NAMES, 64, 96)),
        ("--box-coding yolox --size 32x64", ("yolox", NAMES, 32, 64)),
    ],
)
def test_checkpoint_is_measured_as_it_says(
    given: str,
    expected: tuple[object, ...],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_demo_data(tmp_path, shapes(64, 0), train=0, val=1)
    original: Callable[..., Any] = local_detector.checkpoint_detector
    seen: list[tuple[Any, ...]] = []

    def noted(*arguments: Any) -> object:
        seen.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(local_detector, "checkpoint_detector", noted)
    data = ["--annotations", str(tmp_path / "val.json"), "--images", str(tmp_path)]

    assert main(["evaluate", "--weights", str(weights), *data, *given.split()]) == 0

    [(_, variant, head, contract, *_)] = seen
    assert (variant, head) == ("pico", "coupled")
    size = contract.input
    assert (contract.box_coding, contract.class_names, size.height, size.width) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ("pico", "coupled", "anchor_point", 64, 96)),
        ("--size 128 --box-coding yolox", ("pico", "coupled", "yolox", 128, 128)),
        ("--variant nano --head decoupled", ("nano", "decoupled", "anchor_point", 64, 96)),
    ],
)
def test_training_starts_like_the_weights(
    given: str,
    expected: tuple[object, ...],
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    configs: list[TrainingConfig] = []

    class Run:
        def __init__(self, config: TrainingConfig, *_: object) -> None:
            configs.append(config)

        def run(self, _stop: object) -> bool:
            return True

    monkeypatch.setattr("model_export.training.run.TrainingRun", Run)
    data = f"--data a.json --val b.json --output {tmp_path / 'new'} --device cpu"

    assert main(["train", *data.split(), "--weights", str(weights), *given.split()]) == 0

    [config] = configs
    chosen = (config.variant, config.head, config.box_coding, config.height, config.width)
    assert chosen == expected
    assert config.weights == weights
    has_to_learn = "the layer that gives boxes has to learn anew" in capsys.readouterr().err
    assert has_to_learn == (config.box_coding != KNOWN.box_coding)


@pytest.mark.parametrize(("free", "said"), [(100, "no space is left on the disk"), (1e9, "odd")])
def test_a_full_disk_is_told_in_words(
    free: float, said: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise RuntimeError("odd words")

    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(ModelExportError, match=said):
        save_weights(build("pico", 3), weights, About("pico", "decoupled", KNOWN, {}))


def test_too_little_memory_is_one_line(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("model_export.model.about.read_about", read)
    assert main(["export", "--run", str(weights.parent)]) == 1
    assert capsys.readouterr().err.startswith("error: this machine has too little memory")
