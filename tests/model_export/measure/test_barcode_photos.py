"""A detector is judged on photos by what an independent decoder finds in its boxes."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp
from numpy.typing import NDArray

from model_export.errors import ModelExportError
from model_export.measure.barcodes.photos import (
    PhotoOutcome,
    cover,
    false_alarms,
    iou,
    is_on,
    judge,
    measure_photos,
    tally,
)
from model_export.measure.barcodes.truth import Photo, Reader, Symbol, read_drawn, read_photos
from model_export.measure.evaluate import Found
from support.scripts import benchmark

Box = tuple[float, float, float, float]
TEXT = "hello, box"
QR_AT: Box = (100, 60, 200, 160)


def page() -> NDArray[np.uint8]:
    """White, 400 by 300, with a QR code and no quiet zone of its own."""
    barcode = zxingcpp.create_barcode(TEXT, zxingcpp.BarcodeFormat.QRCode)
    drawn = np.asarray(barcode.to_image(scale=4, add_quiet_zones=False))
    pixels = np.full((300, 400, 3), 255, np.uint8)
    x1, y1, x2, y2 = map(int, QR_AT)
    pixels[y1:y2, x1:x2] = cv2.resize(drawn, (x2 - x1, y2 - y1))[..., None]
    return pixels


def judged(*boxes: Found, symbol: Symbol | None = None) -> PhotoOutcome:
    symbols = (symbol or Symbol("qr_code", TEXT, QR_AT),)
    return judge(Photo(Path("page.png"), symbols), page(), boxes, Reader())


def test_a_right_box_is_found_and_decodes() -> None:
    (fate,) = judged(Found("qr_code", 0.9, QR_AT)).symbols
    assert (fate.found, fate.useful, fate.other_class, fate.box_iou) == (True, True, None, 1.0)


def test_a_box_of_another_class_is_useful_but_not_found() -> None:
    (fate,) = judged(Found("aztec", 0.9, QR_AT)).symbols
    assert (fate.found, fate.useful, fate.other_class) == (False, True, "aztec")


def test_a_cut_symbol_is_found_but_not_useful() -> None:
    (fate,) = judged(Found("qr_code", 0.9, (100, 60, 160, 160))).symbols
    assert (fate.found, fate.useful) == (True, False)


def test_a_box_elsewhere_is_a_stray_and_says_whether_it_decodes() -> None:
    empty = Found("qr_code", 0.9, (250, 200, 350, 290))
    everything = Found("qr_code", 0.8, (0, 0, 400, 300))
    outcome = judged(empty, everything)
    assert outcome.strays == (empty, everything)
    assert outcome.readable_strays == 1
    assert not outcome.symbols[0].found
    assert outcome.symbols[0].useful


def test_the_text_must_be_the_same_to_the_letter() -> None:
    other = Symbol("qr_code", TEXT + " ", QR_AT)
    (fate,) = judged(Found("qr_code", 0.9, QR_AT), symbol=other).symbols
    assert (fate.found, fate.useful, fate.readable_whole) == (True, False, False)


def test_without_boxes_the_bounds_still_say_what_can_be_read() -> None:
    (fate,) = judged().symbols
    assert (fate.found, fate.useful, fate.readable_whole, fate.readable_truth) == (
        False,
        False,
        True,
        True,
    )


def test_a_linear_symbol_is_met_where_its_line_is_covered() -> None:
    line = Symbol("linear", "1", (100, 50, 200, 50))
    assert is_on(Found("linear", 0.9, (90, 10, 210, 90)), line)
    assert is_on(Found("linear", 0.9, (90, 10, 160, 90)), line)
    assert not is_on(Found("linear", 0.9, (90, 10, 140, 90)), line)
    assert not is_on(Found("linear", 0.9, (90, 60, 210, 90)), line)


def test_overlaps_are_those_of_the_areas() -> None:
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (20, 20, 30, 30)) == 0
    assert cover((-9, 0, 4.5, 10), (0, 5, 9, 5)) == pytest.approx(0.5)


class Table:
    """Finds what a table says of a file's content."""

    def __init__(self, table: dict[bytes, list[Found]]) -> None:
        self._table = table

    def class_names(self) -> tuple[str, ...]:
        return ("qr_code",)

    def detect(self, image: bytes) -> Sequence[Found]:
        return self._table[image]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page with a symbol and a blank one."""
    cv2.imwrite(str(tmp_path / "page.png"), page())
    cv2.imwrite(str(tmp_path / "blank.png"), np.full((50, 50, 3), 255, np.uint8))
    x1, y1, x2, y2 = QR_AT
    quad = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    symbol = {"class": "qr_code", "format": "QR Code", "text": TEXT, "quad": quad}
    images = [{"file": "page.png", "symbols": [symbol]}, {"file": "blank.png", "symbols": []}]
    (tmp_path / "truth.json").write_text(json.dumps({"images": images}))
    return tmp_path


def test_a_folder_is_measured_and_counted(folder: Path) -> None:
    photos = read_photos(folder)
    right, wrong = Found("qr_code", 0.9, QR_AT), Found("qr_code", 0.6, (1, 1, 40, 40))
    boxes = dict(
        zip((photo.path.read_bytes() for photo in photos), ([right], [wrong]), strict=True)
    )
    outcomes = measure_photos(Table(boxes), photos, Reader(), lambda: None)
    counts = tally(outcomes, ("qr_code",))
    assert (counts.symbols, counts.recall, counts.usefulness) == (1, 1.0, 1.0)
    assert tally(outcomes, ("aztec",)).symbols == 0
    assert false_alarms(outcomes) == 1


def test_drawn_pictures_are_read_with_what_their_boxes_decode_to(folder: Path) -> None:
    x1, y1, x2, y2 = QR_AT
    boxes = [[x1, y1, x2 - x1, y2 - y1], [0, 0, 30, 30]]
    content = {
        "images": [{"id": 1, "file_name": "page.png"}, {"id": 2, "file_name": "blank.png"}],
        "categories": [{"id": 7, "name": "qr_code"}],
        "annotations": [{"image_id": 1, "category_id": 7, "bbox": box} for box in boxes],
    }
    file = folder / "val.json"
    file.write_text(json.dumps(content))
    (page_, blank) = read_drawn(file, Reader())
    assert [(each.class_name, each.text) for each in page_.symbols] == [
        ("qr_code", TEXT),
        ("qr_code", ""),
    ]
    assert page_.symbols[0].box_xyxy == QR_AT
    assert blank.symbols == ()
    # No box can lose a symbol that no reader reads anywhere; missing it counts all the same.
    (seen, _) = measure_photos(Nothing(), [page_, blank], Reader(), lambda: None)
    assert [(each.lost, each.faulty) for each in seen.symbols] == [(True, True), (False, True)]


@pytest.mark.parametrize("content", [None, "{", '{"images": [{}]}', "[]"])
def test_a_folder_without_a_proper_truth_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "truth.json").write_text(content)
    with pytest.raises(ModelExportError, match=r"truth\.json"):
        read_photos(tmp_path)


def test_the_truth_of_the_real_photos_is_what_whole_photos_decode_to(shared_data: Path) -> None:
    photos = read_photos(shared_data / "zxing-blackbox")[::10]
    outcomes = measure_photos(Nothing(), photos, Reader(), lambda: None)
    counts = tally(outcomes, ("qr_code", "data_matrix", "aztec", "pdf417", "linear"))
    assert counts.symbols > 30
    assert counts.readable_whole == counts.symbols
    assert counts.useful == counts.found == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--nms=foo", "invalid choice: 'foo'"),
        ("--confidence=7", "7 is not within 0 and 1"),
        ("--iou=nan", "nan is not within 0 and 1"),
    ],
)
def test_an_option_without_a_meaning_is_refused(
    option: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["", "--photos", ".", "--model", "m.onnx", option])
    with pytest.raises(SystemExit, match="2"):
        benchmark("barcode_photos").main()
    assert said in capsys.readouterr().err


class Nothing:
    """Finds nothing."""

    def class_names(self) -> tuple[str, ...]:
        return ()

    def detect(self, image: bytes) -> Sequence[Found]:
        return ()


def test_the_sheet_draws_the_photos_with_a_fault(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = benchmark("barcode_sheet")
    photos = read_photos(folder)
    outcomes = measure_photos(Nothing(), photos, Reader(), lambda: None)
    sheet.draw_sheet(outcomes, tmp_path / "sheet.jpg", 120)
    assert cv2.imread(str(tmp_path / "sheet.jpg")).shape == (362, 1800, 3)
    assert "1 photos with a fault" in capsys.readouterr().out
