"""The folder of captured images: what is written, what is not, and what is deleted."""

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model_export.data.forms.coco import read_coco
from service.capture.folder import CapturedBox, CaptureFolder, FolderLimits, Keep, Record, blurred
from service.errors import StartupError

LIMITS = FolderLimits(max_mb=100, max_days=1)
BOXES = (CapturedBox("nut", 0.75, (1.0, 2.0, 10.0, 20.0)),)
RECORD = Record(64, 48, "parts@1", "uncertain", ("bolt", "nut"), BOXES)


def picture() -> Any:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def coco(folder: Path) -> Any:
    return json.loads((folder / "annotations.json").read_text(encoding="utf-8"))


def images(folder: Path) -> list[Path]:
    return sorted((folder / "images").iterdir())


def test_the_folder_is_a_coco_data_set(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path / "kept", "picture", LIMITS)
    folder.add(picture(), RECORD)
    folder.add(picture(), RECORD)
    folder.tidy()
    written = coco(tmp_path / "kept")
    assert [each["name"] for each in written["categories"]] == ["bolt", "nut"]
    assert len(written["images"]) == 2
    first = written["images"][0]
    assert (first["width"], first["height"], first["reason"]) == (64, 48, "uncertain")
    assert first["model"] == "parts@1"
    annotation = written["annotations"][0]
    assert (annotation["bbox"], annotation["score"]) == ([1.0, 2.0, 10.0, 20.0], 0.75)
    assert annotation["category_id"] == 2
    assert cv2.imread(str(tmp_path / "kept" / first["file_name"])).shape == (48, 64, 3)
    read = read_coco(tmp_path / "kept" / "annotations.json")
    assert read.categories == {1: "bolt", 2: "nut"}


def test_classes_of_coco_have_coco_s_own_ids(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, "boxes", LIMITS)
    folder.add(None, Record(8, 8, "m@1", "sample", ("person", "train"), ()))
    folder.tidy()
    assert [each["id"] for each in coco(tmp_path)["categories"]] == [1, 7]


def test_the_classes_of_several_models_are_joined(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, "boxes", LIMITS)
    folder.add(None, RECORD)
    folder.add(None, Record(8, 8, "m@1", "sample", ("gear", "nut"), BOXES))
    folder.tidy()
    written = coco(tmp_path)
    assert [each["name"] for each in written["categories"]] == ["bolt", "nut", "gear"]
    assert {each["category_id"] for each in written["annotations"]} == {2}


def test_files_are_their_owner_s_alone(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path / "kept", "picture", LIMITS)
    folder.add(picture(), RECORD)
    for path in (tmp_path / "kept").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


@pytest.mark.parametrize(("keep", "count"), [("picture", 1), ("blurred", 1), ("boxes", 0)])
def test_no_more_is_kept_than_was_asked(tmp_path: Path, keep: Keep, count: int) -> None:
    folder = CaptureFolder(tmp_path, keep, LIMITS)
    folder.add(picture() if folder.keeps_pictures else None, RECORD)
    assert len(images(tmp_path)) == count
    assert len(list((tmp_path / "records").iterdir())) == 1


def test_a_blurred_picture_keeps_no_detail() -> None:
    # Writing and faces are detail: stripes of a hundredth of the picture are gone.
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, np.arange(400) % 8 < 4] = 255
    assert blurred(stripes).shape == stripes.shape
    assert blurred(stripes).std() < 0.3 * stripes.std()
    halves = np.zeros((400, 400, 3), np.uint8)
    halves[:200] = 255
    assert blurred(halves).std() > 0.9 * halves.std()
    assert blurred(np.zeros((1, 5000, 3), np.uint8)).shape == (1, 5000, 3)


def test_the_oldest_are_deleted_first_where_there_is_too_much(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, "picture", FolderLimits(max_mb=1, max_days=1))
    noise = np.random.default_rng(1).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    for _ in range(8):
        folder.add(noise, RECORD)
    names = [path.name for path in images(tmp_path)]
    folder.tidy()
    left = [path.name for path in images(tmp_path)]
    assert 0 < len(left) < 8
    assert left == names[-len(left) :]
    assert sum(path.stat().st_size for path in images(tmp_path)) <= 2**20
    assert [each["file_name"].removeprefix("images/") for each in coco(tmp_path)["images"]] == left


def test_what_is_too_old_is_deleted(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, "picture", LIMITS)
    folder.add(picture(), RECORD)
    folder.add(picture(), RECORD)
    record = min((tmp_path / "records").iterdir())
    os.utime(record, (time.time() - 90_000,) * 2)
    folder.tidy()
    assert [path.stem for path in images(tmp_path)] == [
        path.stem for path in (tmp_path / "records").iterdir()
    ]
    assert len(images(tmp_path)) == 1


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    folder = CaptureFolder(tmp_path, "picture", FolderLimits(max_mb=1, max_days=1e-9))
    folder.add(picture(), RECORD)
    folder.tidy()
    assert images(tmp_path) == []
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_damaged_record_spoils_no_other(tmp_path: Path) -> None:
    folder = CaptureFolder(tmp_path, "boxes", LIMITS)
    folder.add(None, RECORD)
    (tmp_path / "records" / "half.json").write_text('{"width', encoding="utf-8")
    folder.tidy()
    assert len(coco(tmp_path)["images"]) == 1


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(StartupError, match=r"capture: .*kept cannot be written to"):
        CaptureFolder(tmp_path / "kept", "picture", LIMITS)
