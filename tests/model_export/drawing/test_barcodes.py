"""Drawn barcodes: a reader can read them, and the boxes are where they are."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import zxingcpp
from numpy.typing import NDArray

from model_export.__main__ import main
from model_export.drawing.barcodes import labels, scene, symbols
from model_export.drawing.barcodes.decoys import decoy
from model_export.drawing.barcodes.labels import bare, label, magnified
from model_export.drawing.barcodes.placing import Placement, place
from model_export.drawing.barcodes.scene import draw_scene
from model_export.drawing.barcodes.scenes import BarcodeScenes
from model_export.drawing.barcodes.surfaces import surface
from model_export.drawing.barcodes.symbols import CLASS_NAMES, KINDS, Kind, Symbol
from model_export.samples.augment import augment
from model_export.samples.batch_plan import SampleSpec
from model_export.samples.geometry import Picture
from model_export.samples.loader import TrainingSamples
from model_export.samples.settings import Augmentation

F = zxingcpp.BarcodeFormat


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def symbol_of(kind: Kind, seed: int, length: int = 8) -> Symbol:
    symbol = symbols.encoded(rng(seed), kind, length)
    assert symbol is not None
    return symbol


def family(format_: zxingcpp.BarcodeFormat) -> str:
    """Symbols that readers do not tell apart have one name."""
    name = format_.name
    for start in ("DataBarExp", "DataBarStk", "Compact", "AztecRune", "UPCA"):
        if name.startswith(start):
            return {"Compact": "PDF417", "AztecRune": "Aztec", "UPCA": "EAN13"}.get(start, start)
    return name


def plain(text: str) -> str:
    return "".join(character for character in text if character not in "[]()")


def read(image: NDArray[np.uint8]) -> list[zxingcpp.Barcode]:
    return zxingcpp.read_barcodes(np.ascontiguousarray(image))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.format.name)
def test_a_reader_reads_what_was_drawn(kind: Kind) -> None:
    for seed in range(3):
        symbol = symbol_of(kind, seed)
        dark = magnified(symbol.modules, 4)
        image = 255 - cv2.copyMakeBorder(dark, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=0)
        found = read(image)
        assert [family(barcode.format) for barcode in found] == [family(kind.format)]
        # Readers add check digits, and write UPC-E and runes in full.
        if kind.format not in {F.UPCE, F.AztecRune}:
            assert plain(symbol.text) in plain(found[0].text)


@pytest.mark.parametrize("class_id", range(len(CLASS_NAMES)))
def test_the_box_of_a_bare_symbol_is_that_of_its_ink(class_id: int) -> None:
    kind = next(kind for kind in KINDS if kind.class_id == class_id)
    print_ = bare(rng(4), symbol_of(kind, 1), 3.0, 4.0)
    x1, y1, x2, y2 = print_.symbol_xyxy.astype(int)
    paper = print_.image[0, 0].astype(int)
    differs = np.abs(print_.image.astype(int) - paper).sum(axis=2) > 60
    differs[y2:] = False  # what is printed below it
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    # A symbol may be light at an end of its own, by a module or two.
    assert np.abs([columns[0] - x1, rows[0] - y1]).max() <= 6
    assert np.abs([columns[-1] + 1 - x2, rows[-1] + 1 - y2]).max() <= 6


def test_the_box_to_be_found_keeps_a_little_light_on_every_side() -> None:
    print_ = bare(rng(4), symbol_of(KINDS[0], 1), 4.0, 4.0)
    x1, y1, x2, y2 = print_.symbol_xyxy
    left, top, right, bottom = print_.box_xyxy
    margins = (
        np.array([x1 - left, right - x2]) / (x2 - x1),
        np.array([y1 - top, bottom - y2]) / (y2 - y1),
    )
    np.testing.assert_allclose(margins, 0.08, rtol=1e-3)


def test_a_bare_scene_has_the_box_with_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "BARE_SHARE", 1.0)
    wide = [draw_scene(rng(seed)).boxes_xyxy for seed in range(8)]
    monkeypatch.setattr(labels, "BOX_MARGIN", 0.0)
    tight = [draw_scene(rng(seed)).boxes_xyxy for seed in range(8)]
    sides = [np.concatenate(boxes)[:, 2:] - np.concatenate(boxes)[:, :2] for boxes in (wide, tight)]
    # Those that fill their pictures have no room for it.
    assert (sides[0] >= sides[1]).all()
    assert (sides[0] > sides[1]).any()


@pytest.mark.parametrize("seed", range(12))
def test_decoys_have_the_size_asked_for(seed: int) -> None:
    assert decoy(rng(seed), 40, 70).shape == (40, 70, 3)


@pytest.mark.parametrize("bend", [0.0, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_an_outline_is_where_the_pixels_are(seed: int, bend: float) -> None:
    placed = place(rng(seed), (80, 130), (200, 190))
    placement = Placement(130, 80, placed.matrix, bend, 0.15 if bend else 0.0)
    ink = np.zeros((80, 130), dtype=np.uint8)
    ink[20:60, 30:100] = 255
    canvas = np.full((400, 400, 3), 255, dtype=np.uint8)
    placement.paint_ink(canvas, ink, np.zeros(3, dtype=np.float32))
    x, y, wide, tall = cv2.boundingRect((canvas[:, :, 0] < 128).astype(np.uint8))
    outline = placement.outline(np.array([30, 20, 100, 60], dtype=np.float32))
    ends = [*outline.min(axis=0), *outline.max(axis=0)]
    assert np.abs(np.array([x, y, x + wide, y + tall]) - ends).max() <= 1.5


def test_a_painted_print_covers_its_outline_and_nothing_else() -> None:
    placement = place(rng(3), (60, 90), (100, 100))
    canvas = np.zeros((200, 200, 3), dtype=np.uint8)
    placement.paint(canvas, np.full((60, 90, 3), 255, dtype=np.uint8))
    polygon = np.zeros((200, 200), dtype=np.uint8)
    cv2.fillPoly(polygon, [np.rint(placement.whole() - 0.5).astype(np.int32)], (255,))
    assert np.mean((canvas[:, :, 0] > 0) != (polygon > 0)) < 0.01


def test_symbols_of_a_label_can_be_read_from_its_box() -> None:
    qr = next(kind for kind in KINDS if kind.format == F.QRCode)
    texts = []
    for seed in range(8):
        symbol = symbol_of(qr, seed, 30)
        print_ = label(rng(seed), symbol, 5.0)
        x1, y1, x2, y2 = print_.symbol_xyxy.astype(int)
        found = read(print_.image[max(0, y1 - 5) : y2 + 5, max(0, x1 - 5) : x2 + 5])
        texts.append([barcode.text for barcode in found] == [symbol.text])
    # One may have a logo too large for its error correction.
    assert sum(texts) >= 7


def test_no_symbol_has_more_modules_than_asked_for_if_there_are_smaller_ones() -> None:
    sizes = [max(symbols.random_symbol(rng(seed), 60).modules.shape) for seed in range(60)]
    assert np.mean(np.array(sizes) <= 60) > 0.6


@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_a_turned_scene_hold_the_same_pixels_turned(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(scene, "TURNED_SHARE", share)
        pictures.append(draw_scene(rng(seed)))
    upright, turned = pictures
    np.testing.assert_array_equal(turned.image, np.rot90(upright.image))
    np.testing.assert_array_equal(turned.class_ids, upright.class_ids)
    for before, after in zip(upright.boxes_xyxy, turned.boxes_xyxy, strict=True):
        # The box's pixels are marked in one, turned, and must be those of the other.
        mark = np.zeros(upright.image.shape[:2], dtype=np.uint8)
        x1, y1, x2, y2 = np.rint(before).astype(int)
        mark[y1:y2, x1:x2] = 1
        ys, xs = np.nonzero(np.rot90(mark))
        ends = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        np.testing.assert_allclose(after, ends, atol=0.51)


def test_scenes_have_boxes_within_them_and_all_classes() -> None:
    seen: Counter[int] = Counter()
    empty = 0
    for seed in range(120):
        picture = draw_scene(rng(seed))
        height, width = picture.image.shape[:2]
        x1, y1, x2, y2 = picture.boxes_xyxy.T
        assert picture.image.dtype == np.uint8
        assert (x1 >= 0).all()
        assert (y1 >= 0).all()
        assert (x2 <= width).all()
        assert (y2 <= height).all()
        assert (x2 > x1).all()
        assert (y2 > y1).all()
        seen.update(picture.class_ids.tolist())
        empty += len(picture.class_ids) == 0
    assert set(seen) == set(range(len(CLASS_NAMES)))
    assert 5 <= empty <= 50


def same(first: Picture, second: Picture) -> bool:
    return np.array_equal(first.image, second.image) and np.array_equal(
        first.boxes_xyxy, second.boxes_xyxy
    )


def test_a_scene_depends_on_its_number_alone() -> None:
    scenes = BarcodeScenes(50, seed=3)
    backwards = {number: scenes[number] for number in (30, 7, 2)}
    assert all(same(scenes[number], picture) for number, picture in backwards.items())


def test_every_epoch_and_seed_has_other_scenes() -> None:
    scenes = BarcodeScenes(5, seed=3)
    assert not same(scenes[1], scenes.at_epoch(1)[1])
    assert not same(scenes[1], BarcodeScenes(5, seed=4)[1])
    assert same(scenes.at_epoch(1)[0], scenes.at_epoch(0)[5])


def test_a_training_sees_other_scenes_in_every_epoch() -> None:
    plain = Augmentation(mosaic_probability=0, flip_probability=0, hsv_probability=0)
    samples = TrainingSamples(BarcodeScenes(5, seed=3), plain, seed=0)
    first, again, second = (samples[SampleSpec(1, epoch, 96, 96)] for epoch in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, second.image)


def test_scenes_become_samples_without_mosaics_and_mixups_of_nothing() -> None:
    settings = Augmentation(mosaic_probability=1.0, mixup_probability=1.0)
    picture = augment(BarcodeScenes(5, seed=0), SampleSpec(2, 0, 96, 128), settings, seed=0)
    assert picture.image.shape == (96, 128, 3)


def test_surfaces_have_the_size_asked_for() -> None:
    assert {surface(rng(seed), 70, 50).shape for seed in range(60)} == {(70, 50, 3)}


def test_demo_data_of_barcodes_is_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = ["demo-data", "--subject", "barcodes", "--output", str(folder)]
    assert main([*command, "--train", "1", "--val", "6"]) == 0
    sheet = tmp_path / "sheet.png"
    assert main(["preview", "--data", str(folder / "val.json"), "--output", str(sheet)]) == 0
    assert sheet.exists()


def test_a_sheet_of_drawn_barcodes_needs_no_files(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    command = ["preview", "--data", "barcodes:8", "--output", str(sheet), "--count", "4"]
    assert main([*command, "--size", "96"]) == 0
    assert sheet.exists()
