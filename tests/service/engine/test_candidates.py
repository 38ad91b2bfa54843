"""Rows that are chosen on the device: the same detections as from all rows, to the last bit."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from service.core.contract import InputSpec, ModelContract, NmsMethod, ScoreBy
from service.core.decode import raw_threshold
from service.core.letterbox import Letterbox
from service.core.postprocess import find_objects
from service.core.suppress import DetectionOptions
from service.engine.base import CPU, ChoosingEngine, ImageRows
from service.engine.candidates import CandidateRows, are_enough
from support.model_files import IMAGES, loaded, model_file
from support.onnx_models import tiny_yolox_model
from support.runtimes import PretendingRuntime, use_runtime

NAMES = ("red", "green", "blue")
METHODS: tuple[NmsMethod, ...] = ("soft-mean", "soft-gaussian", "soft-linear", "hard", "none")
SCORES: tuple[ScoreBy, ...] = ("objectness", "joint")
LETTERBOX = Letterbox(1.5, 128, 128, 192, 192)
CELLS = 24 * 24 + 12 * 12 + 6 * 6
COUNT = 100


def contract(**fields: Any) -> ModelContract:
    return ModelContract("m", "1", InputSpec("images", 192, 192), NAMES, **fields)


def random_rows(dtype: str = "float32", images: int = 3, candidates: int = 40) -> NDArray[Any]:
    """Rows of mostly background, with ties of objectness among the candidates."""
    random = np.random.default_rng(7)
    rows = random.normal(0, 1, (images, CELLS, 5 + len(NAMES))).astype(dtype)
    rows[..., 4] = random.normal(-9, 1, (images, CELLS))
    for image in rows:
        best = random.choice(CELLS, candidates, replace=False)
        image[best, 4] = random.integers(-2, 4, candidates) / 2
    return rows


def choose(rows: NDArray[Any], count: int = COUNT) -> list[ImageRows]:
    chooser = CandidateRows(onnxruntime, [(CPU, {})], rows.dtype, count)
    return chooser.choose(onnxruntime.OrtValue.ortvalue_from_numpy(rows), np.empty)


def find(rows: ImageRows, model: ModelContract, options: DetectionOptions) -> tuple[bytes, ...]:
    found = find_objects(rows.raw, LETTERBOX, model, options, rows.cells)
    return tuple(values.tobytes() for values in vars_of(found))


def vars_of(found: Any) -> list[NDArray[Any]]:
    return [getattr(found, field.name) for field in dataclasses.fields(found)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("method", "score_by"), list(product(METHODS, SCORES)))
def test_detections_are_those_of_all_rows_to_the_last_bit(
    dtype: str, method: NmsMethod, score_by: ScoreBy
) -> None:
    rows, model = random_rows(dtype), contract()
    chosen = choose(rows)
    assert [len(image.raw) for image in chosen] == [COUNT] * 3
    for classes, confidence in product((None, frozenset({0, 2})), (0.01, 0.3, 0.5)):
        options = DetectionOptions(
            confidence=confidence, nms=method, score_by=score_by, class_ids=classes
        )
        assert are_enough(chosen, [raw_threshold(model, confidence)] * 3)
        for image, raw in zip(chosen, rows, strict=True):
            found = find(image, model, options)
            assert found == find(ImageRows(raw), model, options)
            assert found[1] or confidence > 0.01


def test_too_few_rows_are_noticed_in_any_image() -> None:
    rows, model = random_rows(candidates=40), contract()
    threshold = raw_threshold(model, 0.2)
    chosen = choose(rows, 40)
    passing = [int((image[:, 4] >= threshold).sum()) for image in rows]
    assert passing == [40, 40, 40]
    assert not are_enough(chosen, [threshold] * 3)
    assert are_enough(choose(rows, 41), [threshold] * 3)
    assert not are_enough(chosen, [threshold + 9, threshold + 9, threshold])


def test_a_confidence_of_zero_needs_every_row() -> None:
    rows = random_rows()
    assert not are_enough(choose(rows), [raw_threshold(contract(), 0.0)] * 3)


def test_an_objectness_that_is_nan_reaches_the_server() -> None:
    rows = random_rows(candidates=40)
    rows[1, 5, 4] = np.nan
    finite = [bool(np.isfinite(image.raw).all()) for image in choose(rows, 10)]
    assert finite == [True, False, True]


def test_probabilities_are_compared_as_they_are() -> None:
    model = contract(score_activation="probabilities")
    rows = random_rows()
    rows[..., 4:] = 1 / (1 + np.exp(-rows[..., 4:]))
    options = DetectionOptions(confidence=0.3)
    chosen = choose(rows)
    assert are_enough(chosen, [raw_threshold(model, 0.3)] * 3)
    for image, raw in zip(chosen, rows, strict=True):
        assert find(image, model, options) == find(ImageRows(raw), model, options)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_engine_on_a_gpu_passes_on_the_best_rows_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any
) -> None:
    use_runtime(monkeypatch, PretendingRuntime())
    path = model_file(tmp_path, tiny_yolox_model(dtype=dtype), dtype=dtype)
    engine = loaded(path, device="cuda", max_batch=4, max_candidates=20)
    engine.warm((64, 64))
    assert isinstance(engine, ChoosingEngine)
    images = [*IMAGES]
    expected = engine.infer(images)
    lowest_chosen = np.sort(expected[..., 4], axis=1)[:, -20]
    enough = engine.infer_candidates(images, [float(value) + 0.01 for value in lowest_chosen])
    assert len(enough) == 3
    for rows, raw in zip(enough, expected, strict=True):
        assert rows.cells is not None
        assert sorted(rows.cells) == list(rows.cells)
        np.testing.assert_array_equal(rows.raw, raw[rows.cells])
    everything = engine.infer_candidates(images, [float(lowest_chosen[0]), 99.0, 99.0])
    for rows, raw in zip(everything, expected, strict=True):
        assert rows.cells is None
        np.testing.assert_array_equal(rows.raw, raw)


def test_few_cells_are_all_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_runtime(monkeypatch, PretendingRuntime())
    engine = loaded(model_file(tmp_path), device="cuda", max_candidates=50)
    assert isinstance(engine, ChoosingEngine)
    (rows,) = engine.infer_candidates([IMAGES[0]], [99.0])
    assert rows.cells is None
    np.testing.assert_array_equal(rows.raw, engine.infer([IMAGES[0]])[0])
