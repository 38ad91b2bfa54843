"""Which engine `auto` takes on a CPU: the quicker one, if it finds the same."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine import choose
from service.engine.base import CPU, OPENVINO
from service.engine.measure import Measured, differences, measure, scene, size_to_measure
from support.engines import CONTRACT, LOGIT_SURE
from support.model_files import dynamic_model, loaded, model_file

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the package openvino is not installed"
)
QUICKER = Measured(20.0, 10.0, "bf16", 0.02, 0.01)


def measured(**changes: Any) -> Measured:
    fields = {name: getattr(QUICKER, name) for name in Measured.__slots__}
    return Measured(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"openvino_ms": 19.0}, True),
        ({"openvino_ms": 19.6}, False),
        ({"openvino_ms": 30.0}, False),
        ({"score_difference": 0.2}, False),
        ({"box_difference": 0.2}, False),
        ({"score_difference": float("inf")}, False),
    ],
)
def test_openvino_is_taken_where_it_is_quicker_and_finds_the_same(
    changes: dict[str, Any], taken: bool
) -> None:
    assert choose.openvino_is_better(measured(**changes)) is taken


def test_the_log_says_why_a_quicker_engine_is_not_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    choose.openvino_is_better(measured(score_difference=0.2))
    assert "finds something else" in capsys.readouterr().err


@needs_openvino
@pytest.mark.parametrize(("found", "provider"), [(QUICKER, OPENVINO), (None, CPU)])
def test_auto_takes_what_was_measured_and_onnx_runtime_where_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Measured | None, provider: str
) -> None:
    monkeypatch.setattr(choose, "_measured", lambda _: found)
    engine = loaded(model_file(tmp_path), device="auto")
    assert engine.provider == engine.wanted_provider == provider


@needs_openvino
def test_openvino_alone_serves_where_onnx_runtime_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert loaded(model_file(tmp_path), device="auto").provider == OPENVINO


def test_onnx_runtime_serves_without_measuring_where_openvino_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(choose, "_measured", None)
    assert loaded(model_file(tmp_path), device="auto").provider == CPU


@needs_openvino
def test_both_engines_are_measured_in_a_process_and_the_choice_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "choices"
    options = choose.EngineOptions(dynamic_model(tmp_path), choices=folder)
    first = choose._measured(options)
    assert first is not None
    assert min(first.onnxruntime_ms, first.openvino_ms) > 0
    assert first.score_difference < choose.SCORE_TOLERANCE
    (kept,) = folder.iterdir()
    assert Measured(**json.loads(kept.read_text())) == first
    monkeypatch.setattr(choose, "_measure", None)
    assert choose._measured(options) == first


@needs_openvino
def test_another_model_or_cpu_is_another_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose._key(choose.EngineOptions(model_file(tmp_path)))
    assert choose._key(choose.EngineOptions(model_file(tmp_path))) == first
    assert choose._key(choose.EngineOptions(dynamic_model(tmp_path))) != first
    monkeypatch.setattr(choose, "cpu_model", lambda: "another CPU")
    assert choose._key(choose.EngineOptions(model_file(tmp_path))) != first


def test_a_measurement_that_fails_is_told_and_the_start_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    assert choose._measured(choose.EngineOptions(broken)) is None
    assert "engines could not be measured" in capsys.readouterr().err


@needs_openvino
def test_a_photo_s_size_is_measured_for_rectangles_and_the_whole_for_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []

    def noted(height: int, width: int) -> Any:
        sizes.append((height, width))
        return scene(height, width)

    monkeypatch.setattr("service.engine.measure.scene", noted)
    for mode in ("rectangle", "square"):
        measure(dynamic_model(tmp_path), mode, threads=1, seconds=0)  # type: ignore[arg-type]
    assert sizes[0] != sizes[1] == (64, 96)


def test_a_large_input_is_measured_on_a_smaller_one_of_its_shape() -> None:
    def size(height: int, width: int, *, dynamic_size: bool) -> tuple[int, int]:
        spec = replace(CONTRACT.input, height=height, width=width, dynamic_size=dynamic_size)
        return size_to_measure(replace(CONTRACT, input=spec), None)

    assert size(416, 416, dynamic_size=True) == (320, 416)
    assert size(416, 416, dynamic_size=False) == (416, 416)
    assert size(1088, 1920, dynamic_size=False) == (1088, 1920)
    height, width = size(1088, 1920, dynamic_size=True)
    assert height % 32 == width % 32 == 0
    assert 0.75 * 416 * 416 < height * width <= 416 * 416
    assert width / height == pytest.approx(4 / 3, abs=0.15)


def rows_of(objectness: float, width: float) -> Any:
    rows = np.full((84, 8), -12, np.float32)
    rows[9] = (0.5, 0.5, width, 0.0, objectness, LOGIT_SURE, -12, -12)
    return rows


def test_differences_are_those_of_scores_and_of_boxes_that_are_there() -> None:
    assert differences(rows_of(0, 1), rows_of(0, 1), CONTRACT, (64, 64)) == (0, 0)
    score, box = differences(rows_of(0, 1), rows_of(1, 1), CONTRACT, (64, 64))
    assert score == pytest.approx(1 / (1 + np.exp(-1)) - 0.5, abs=1e-6)
    assert box == 0
    score, box = differences(rows_of(0, np.log(2)), rows_of(0, np.log(3)), CONTRACT, (64, 64))
    assert (score, box) == pytest.approx((0, 0.25))
    # No object, no box.
    assert differences(rows_of(-12, 1), rows_of(-12, 2), CONTRACT, (64, 64))[1] == 0


def test_the_class_of_background_makes_no_difference() -> None:
    ours, theirs = rows_of(-12, 1), rows_of(-12, 1)
    theirs[:, 5] = LOGIT_SURE
    assert differences(ours, theirs, CONTRACT, (64, 64))[0] < 1e-4
    ours, theirs = rows_of(LOGIT_SURE, 1), rows_of(LOGIT_SURE, 1)
    theirs[9, 5] = 0
    assert differences(ours, theirs, CONTRACT, (64, 64))[0] == pytest.approx(0.5, abs=1e-3)


def test_rows_that_are_not_finite_never_agree() -> None:
    broken = rows_of(0, 1)
    broken[0, 0] = np.nan
    assert differences(rows_of(0, 1), broken, CONTRACT, (64, 64)) == (np.inf, np.inf)
