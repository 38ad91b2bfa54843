"""Data are counted, and what is probably wrong is said before a training begins."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from model_export.__main__ import main
from model_export.data.checked_images import CheckedImages, check_images
from model_export.data.reading import read_annotations
from model_export.errors import ModelExportError
from model_export.inspection.inspection import Inspection, inspect
from model_export.inspection.near_duplicates import near_duplicates
from model_export.inspection.statistics import NetworkView
from support import data_forms as forms
from support.pictures import encode, photo_like

VIEW = NetworkView(416, 416, 2.0)


def data_set(
    folder: Path,
    boxes: list[tuple[str, float, float, float, float]],
    *,
    names: tuple[str, ...] = ("cat", "dog"),
    size: tuple[int, int] = (400, 400),
    seed: int = 0,
) -> Path:
    """A COCO json of one image with boxes x, y, w, h, and one without."""
    height, width = size
    folder.mkdir()
    for number in (1, 2):
        pixels = photo_like(width, height, seed=seed + number)
        (folder / f"{number}.jpg").write_bytes(encode(pixels, "JPEG"))
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": 1, "category_id": names.index(name), "bbox": box} for name, *box in boxes
        ],
    }
    return forms.write(folder / "a.json", json.dumps(content))


def checked(*arguments: Any, **options: Any) -> CheckedImages:
    return check_images(read_annotations(data_set(*arguments, **options)))


def inspected(train: CheckedImages, val: CheckedImages | None = None) -> Inspection:
    return inspect(train, val, VIEW)


def test_boxes_are_counted_at_the_size_of_the_network(tmp_path: Path) -> None:
    boxes = [
        ("cat", 0.0, 0.0, 10.0, 10.0),
        ("cat", 0.0, 0.0, 100.0, 100.0),
        ("dog", 0.0, 0.0, 800.0, 300.0),
        ("dog", 0.0, 0.0, 3.0, 700.0),
    ]
    found = inspected(checked(tmp_path / "a", boxes, size=(800, 832)))

    cat, dog = found.train_statistics.classes
    assert (found.train_statistics.images, found.train_statistics.empty) == (2, 1)
    assert (cat.boxes, cat.images, cat.small, cat.medium, cat.large, cat.lost) == (2, 1, 1, 1, 0, 0)
    assert (dog.boxes, dog.images, dog.small, dog.medium, dog.large, dog.lost) == (2, 1, 1, 0, 1, 1)
    assert cat.side == pytest.approx((5 + 50) / 2)
    assert found.train_statistics.sizes == (((800, 832), 2),)


def test_boxes_that_a_size_loses_are_told(tmp_path: Path) -> None:
    boxes = [
        ("cat", 9.0, 9.0, 19.0, 19.0),
        ("cat", 9.0, 9.0, 20.0, 20.0),
        ("dog", 0.0, 0.0, 99.0, 99.0),
    ]
    found = inspected(checked(tmp_path / "a", boxes, size=(3000, 4000)))
    (told,) = [each for each in found.warnings() if "narrower" in each]
    assert told.startswith(
        "1 of 3 boxes are narrower than 2 pixels at 416 x 416, and are no targets"
    )
    assert "(cat 1 of 2)" in told
    found.refuse_no_targets()


def test_data_without_a_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="none of the 2 training images has a box"):
        inspected(checked(tmp_path / "a", [])).refuse_no_targets()
    small = checked(tmp_path / "b", [("cat", 9.0, 9.0, 5.0, 5.0)], size=(3000, 4000))
    with pytest.raises(ModelExportError, match="no box can be learnt: 1 of 1 boxes are narrower"):
        inspected(small).refuse_no_targets()


def test_classes_are_compared_between_training_and_validation(tmp_path: Path) -> None:
    names = ("cat", "dog", "Dog ", "cow", "hen")
    cats = [("cat", 0.0, 0.0, 50.0, 50.0)] * 10
    train = checked(tmp_path / "a", [*cats, ("dog", 0.0, 0.0, 50.0, 50.0)], names=names)
    val = checked(tmp_path / "b", [("cow", 0.0, 0.0, 50.0, 50.0)], names=names, seed=7)

    assert inspected(train, val).warnings() == [
        "classes with boxes in the validation data alone: cow",
        "classes without boxes: Dog , hen",
        "classes without boxes in the validation data: cat, dog",
        "classes with fewer than 10 boxes to learn from: dog",
        "class names that differ in case or blanks alone: 'dog' and 'Dog '",
    ]


def test_images_of_another_shape_than_the_input_are_told(tmp_path: Path) -> None:
    boxes = [("cat", 0.0, 0.0, 200.0, 90.0), ("dog", 0.0, 0.0, 200.0, 90.0)]
    (told,) = [
        each
        for each in inspected(checked(tmp_path / "a", boxes, size=(100, 200))).warnings()
        if "choose --size" in each
    ]
    assert told.startswith("the images are 2 times as wide as high, and fill 50%")


def test_clipped_boxes_are_told(tmp_path: Path) -> None:
    data = checked(tmp_path / "a", [("cat", -9.0, 0.0, 50.0, 50.0), ("dog", -0.5, 0.0, 50.0, 50.0)])
    assert "boxes that stick out of the image, and were clipped: 1, in " in "\n".join(data.report())
    assert [path.name for path in data.clipped] == ["1.jpg"]


# Near-duplicates


def test_copies_in_other_sizes_and_compressions_are_found(tmp_path: Path) -> None:
    train = checked(tmp_path / "a", [("cat", 0.0, 0.0, 50.0, 50.0)])
    for number, side in ((1, 300), (2, 400)):
        with Image.open(tmp_path / f"a/{number}.jpg") as image:
            copy = image.resize((side, side))
        if number == 2:
            copy = copy.rotate(90)
        (tmp_path / f"{number}.jpg").write_bytes(encode(np.asarray(copy), "JPEG", quality=40))
    val_path = data_set(tmp_path / "b", [("cat", 0.0, 0.0, 50.0, 50.0)], seed=5)
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").rename(tmp_path / f"b/{number}.jpg")
    val = check_images(read_annotations(val_path))

    assert near_duplicates(train, val) == [(0, 0)]
    (told,) = [each for each in inspected(train, val).warnings() if "look like" in each]
    assert told.startswith("1 validation images look like training images")
    assert told.endswith("1.jpg like 1.jpg")


def test_real_photos_are_told_apart(shared_data: Path) -> None:
    folder = shared_data / "coco-subset"
    photos = check_images(read_annotations(folder / "instances_all.json", folder / "images"))
    found = near_duplicates(photos, photos)
    assert found == [(number, number) for number in range(len(photos))]


# The command and its page


def test_inspect_prints_the_table_and_the_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = forms.voc_side_by_side(tmp_path)
    assert main(["inspect", "--data", str(source), "--val", "0.5", "--size", "64x96"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("read as Pascal VOC, for its XML files")
    (titles,) = [number for number, line in enumerate(lines) if line.startswith("class ")]
    assert [line.split()[0] for line in lines[titles + 1 : titles + 4]] == ["bird", "cat", "dog"]
    assert any(line.startswith("warning: classes with fewer than 10 boxes") for line in lines)


def test_inspect_counts_the_validation_images_that_a_training_measures_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(tmp_path / "train", [("cat", 0.0, 0.0, 50.0, 50.0)])
    data_set(tmp_path / "val", [("cat", 0.0, 0.0, 50.0, 50.0), ("cat", 20.0, 20.0, 70.0, 70.0)])
    assert main(["inspect", "--data", str(tmp_path)]) == 0
    (cat,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cat ")]
    assert [cat.split()[1], cat.split()[-2]] == ["1", "2"]


def test_inspect_says_that_a_training_needs_validation_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(tmp_path / "data", [("cat", 0.0, 0.0, 50.0, 50.0)])
    assert main(["inspect", "--data", str(source)]) == 0
    assert "validation: none; a training needs --val, such as --val 0.2" in capsys.readouterr().out


NASTY = "<script>alert(1)</script>|*_"


def test_the_page_shows_names_as_they_are(tmp_path: Path) -> None:
    boxes = [(NASTY, 0.0, 0.0, 50.0, 50.0), ("dog", 5.0, 5.0, 99.0, 99.0)]
    source = data_set(tmp_path / "data", boxes, names=(NASTY, "dog"))
    page = tmp_path / "page.html"

    options = ["--val", str(source), "--size", "64", "--pictures", "2", "--output", str(page)]
    assert main(["inspect", "--data", str(source), *options]) == 0

    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    body = ET.fromstring(re.sub(r"<!DOCTYPE html>|<meta[^>]*>|<img[^>]*>", "", text))  # noqa: S314
    cells = [[cell.text for cell in row] for row in body.iter("tr")]
    assert [row[0] for row in cells] == ["class", NASTY, "dog"]
    assert text.count("data:image/jpeg;base64,") == 2


def test_a_markdown_page_has_its_pictures_beside_it(tmp_path: Path) -> None:
    source = data_set(tmp_path / "data", [(NASTY, 0.0, 0.0, 50.0, 50.0)], names=(NASTY,))
    page = tmp_path / "page.md"
    assert main(["inspect", "--data", str(source), "--size", "64", "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert r"&lt;script>alert(1)&lt;/script>\|\*\_ |" in text
    assert "![Images of train with their boxes](page-train.jpg)" in text
    with Image.open(tmp_path / "page-train.jpg") as image:
        assert image.size == (64 * 2 + 4, 64)
