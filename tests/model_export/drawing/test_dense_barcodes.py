"""Dense symbols and low strips: what is drawn, how often, and that other pictures stay the same."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp

from model_export.__main__ import main
from model_export.drawing.barcodes import scene
from model_export.drawing.barcodes.dense.pictures import (
    SEEN_SIDE,
    STRIP_HEIGHTS,
    draw_dense,
    draw_measured,
    filling,
    lone_strip,
)
from model_export.drawing.barcodes.dense.symbols import dense_pdf417, dense_qr_code, strip
from model_export.drawing.barcodes.labels import BOX_MARGIN, magnified
from model_export.drawing.barcodes.scene import draw_scene
from model_export.drawing.barcodes.symbols import CLASS_NAMES, LINEAR, PDF417, QR_CODE, Symbol
from model_export.samples.geometry import Picture, quarter_turned

# Draws of a share that a test counts; three standard deviations of 0.3 are 0.07.
DRAWS = 400


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def read(symbol: Symbol, scale: int) -> list[str]:
    ink = cv2.copyMakeBorder(
        magnified(symbol.modules, scale), 40, 40, 40, 40, cv2.BORDER_CONSTANT, value=0
    )
    return [found.text for found in zxingcpp.read_barcodes(255 - ink)]


@pytest.mark.parametrize("seed", range(6))
def test_a_dense_qr_code_has_a_version_from_25_up_and_can_be_read(seed: int) -> None:
    symbol = dense_qr_code(rng(seed))
    version = (symbol.modules.shape[0] - 17) / 4
    assert 25 <= version <= 40
    assert read(symbol, 3) == [symbol.text]


@pytest.mark.parametrize("seed", range(6))
def test_a_dense_pdf417_has_many_rows_and_can_be_read(seed: int) -> None:
    symbol = dense_pdf417(rng(seed))
    rows = 1 + np.count_nonzero((np.diff(symbol.modules.astype(int), axis=0) != 0).any(axis=1))
    assert 20 <= rows <= 90
    assert read(symbol, 3) == [symbol.text]


def test_a_strip_has_the_proportion_asked_for() -> None:
    for seed in range(8):
        rows, columns = strip(rng(seed), 200, 20).modules.shape
        assert rows == pytest.approx(columns / 20, abs=0.5)


def test_pictures_that_are_not_dense_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(16, 28)
    dense = [rng(seed).spawn(1)[0].random() < scene.DENSE_SHARE for seed in seeds]
    assert 0 < sum(dense) < len(dense)
    pictures = [draw_scene(rng(seed)).image for seed in seeds]
    monkeypatch.setattr(scene, "DENSE_SHARE", 0.0)
    before = [draw_scene(rng(seed)).image for seed in seeds]
    same = [np.array_equal(one, two) for one, two in zip(pictures, before, strict=True)]
    assert same == [not each for each in dense]


def test_pictures_are_turned_to_all_four_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(16)
    today = [draw_scene(rng(seed)) for seed in seeds]
    for name in ("TURNED_SHARE", "UPSIDE_DOWN_SHARE"):
        monkeypatch.setattr(scene, name, 0.0)
    upright = [draw_scene(rng(seed)) for seed in seeds]
    seen: Counter[int] = Counter()
    for turned, picture in zip(today, upright, strict=True):
        all_four = [picture]
        for _ in range(3):
            all_four.append(quarter_turned(all_four[-1]))
        (turns,) = (k for k, one in enumerate(all_four) if np.array_equal(turned.image, one.image))
        assert np.array_equal(turned.boxes_xyxy, all_four[turns].boxes_xyxy)
        seen[turns] += 1
    assert set(seen) == {0, 1, 2, 3}


def test_the_share_of_dense_pictures_is_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = Picture(
        np.zeros((8, 8, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    )
    drawn: Counter[str] = Counter()

    def counted(kind: str) -> Picture:
        drawn[kind] += 1
        return blank

    monkeypatch.setattr(scene, "draw_dense", lambda _rng: counted("dense"))
    monkeypatch.setattr(scene, "_upright_scene", lambda _rng: counted("other"))
    for seed in range(DRAWS):
        draw_scene(rng(seed))
    assert drawn["dense"] / DRAWS == pytest.approx(scene.DENSE_SHARE, abs=0.07)


def test_dense_pictures_have_boxes_within_them_and_few_are_empty() -> None:
    seen: Counter[int] = Counter()
    empty = 0
    for seed in range(25):
        picture = draw_dense(rng(seed))
        height, width = picture.image.shape[:2]
        x1, y1, x2, y2 = picture.boxes_xyxy.T
        assert ((x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)).all()
        assert ((x2 > x1) & (y2 > y1)).all()
        seen.update(picture.class_ids.tolist())
        empty += len(picture.class_ids) == 0
    assert {QR_CODE, PDF417, LINEAR} < set(seen) <= set(range(len(CLASS_NAMES)))
    assert empty <= 5


def test_a_symbol_that_fills_its_picture_has_a_box_of_nearly_all_of_it() -> None:
    for seed in range(4):
        picture = filling(rng(seed), dense_qr_code(rng(seed)))
        x1, y1, x2, y2 = picture.boxes_xyxy[0]
        height, width = picture.image.shape[:2]
        assert (x2 - x1) * (y2 - y1) > 0.85 * height * width


def test_a_lone_strip_is_as_low_as_a_detector_should_see_it() -> None:
    for seed in range(8):
        picture = lone_strip(rng(seed))
        x1, y1, x2, y2 = picture.boxes_xyxy[0]
        bars = (y2 - y1) / (x2 - x1) * SEEN_SIDE
        # Margins widen the box; a module's height is rounded to whole modules.
        assert bars < STRIP_HEIGHTS[1] * (1 + 2 * BOX_MARGIN) + 8


def test_the_kinds_of_a_set_to_measure_on_take_turns() -> None:
    classes = [set(draw_measured(rng(5, number), number).class_ids.tolist()) for number in range(6)]
    # A field of a page may have a look-alike in place of its symbol.
    wanted = [{QR_CODE}, {QR_CODE}, {QR_CODE}, {PDF417}, {LINEAR}, {LINEAR}]
    assert all(found <= kind for found, kind in zip(classes, wanted, strict=True))
    assert sum(map(bool, classes)) >= 5


def test_demo_data_draws_a_set_to_measure_on_that_is_the_same_each_time(tmp_path: Path) -> None:
    command = ["demo-data", "--subject", "dense-barcodes", "--train", "0", "--val", "6"]
    contents = []
    for name in ("one", "two"):
        assert main([*command, "--seed", "3", "--output", str(tmp_path / name)]) == 0
        contents.append(json.loads((tmp_path / name / "val.json").read_text("utf-8")))
    assert contents[0] == contents[1]
    named = {each["id"]: each["name"] for each in contents[0]["categories"]}
    found = {named[box["category_id"]] for box in contents[0]["annotations"]}
    assert found <= {"qr_code", "pdf417", "linear"}
    assert len(found) >= 2
