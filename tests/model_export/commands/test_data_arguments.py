"""The arguments that name data sets."""

from pathlib import Path

import pytest
from cyclopts import CycloptsError

from model_export.commands.data_sets.arguments import (
    DrawableDataOptions,
    ValidationOptions,
    data_sources,
)
from model_export.data.sources import DataSource, Share
from model_export.errors import ModelExportError
from support import data_forms as forms
from support.commands import bound


def parsed(*arguments: str | Path) -> tuple[DrawableDataOptions, ValidationOptions]:
    def command(
        *,
        data: DrawableDataOptions = DrawableDataOptions(),
        measured: ValidationOptions = ValidationOptions(),
    ) -> None: ...

    given = bound(command, *arguments)
    given.apply_defaults()
    return given.arguments["data"], given.arguments["measured"]


def test_a_share_is_held_out_of_the_training_data(tmp_path: Path) -> None:
    source = forms.coco_beside(tmp_path)
    rest, held = data_sources(*parsed("--data", source, "--val", "0.2", "--val-seed", "7"))
    assert rest == DataSource(source, share=Share(0.2, 7, held_out=False))
    assert held == DataSource(source, share=Share(0.2, 7, held_out=True))


def test_everything_that_is_given_reaches_the_sources(tmp_path: Path) -> None:
    source = forms.csv_of_tensorflow(tmp_path / "a")
    other = forms.voc_side_by_side(tmp_path / "b")
    options = "--split a --form csv --names dog,cat --val-split b --val-form voc".split()
    folders = ("--images", tmp_path / "i", "--val-images", tmp_path / "v")
    train, val = data_sources(
        *parsed("--data", source, other, "--val", other, source, *options, *folders)
    )
    assert train == DataSource(source, tmp_path / "i", "a", (other,), "csv", ("dog", "cat"))
    assert val == DataSource(other, tmp_path / "v", "b", (source,), "voc")


@pytest.mark.parametrize("name", ["voc_side_by_side", "yolo_of_roboflow", "yolo_with_lists"])
def test_a_data_set_with_splits_brings_its_own_validation_data(name: str, tmp_path: Path) -> None:
    source = forms.FORMS[name](tmp_path)
    train, val = data_sources(*parsed("--data", source))
    assert train == DataSource(source)
    assert val == DataSource(source, split="val")


def test_other_data_are_taken_whole_unless_they_have_splits(tmp_path: Path) -> None:
    divided = forms.voc_side_by_side(tmp_path / "divided")
    for whole in (
        divided / "train",
        forms.coco_of_cvat(tmp_path / "cvat"),
        forms.yolo_of_segments(tmp_path / "yolo"),
        forms.csv_without_header(tmp_path / "csv").parent,
    ):
        assert data_sources(*parsed("--data", divided, "--val", whole))[1].split == "train"
    assert data_sources(*parsed("--data", divided, "--val", divided))[1].split == "val"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--split train", "this needs --data"),
        ("--data {coco}", r"no validation images: .*--val 0\.2"),
        ("--data barcodes:5", "no validation images"),
        ("--data barcodes:5 --val 0.2", "drawn barcodes cannot be held out"),
        ("--data barcodes:5 {coco} --val {coco}", "cannot be joined"),
        ("--data {coco} --val 0.2 {coco}", "takes no other validation data"),
        ("--data {coco} --val 0.2 --val-split test", "takes no other validation data"),
        ("--data {coco} --val {coco} --val-seed 1", "go with --val SHARE alone"),
    ],
)
def test_contradictions_are_explained(arguments: str, complaint: str, tmp_path: Path) -> None:
    coco = forms.coco_beside(tmp_path)
    with pytest.raises(ModelExportError, match=complaint):
        data_sources(*parsed(*arguments.format(coco=coco).split()))


@pytest.mark.parametrize("share", ["0", "1", "1.5", "-0.2"])
def test_only_a_part_can_be_held_out(share: str) -> None:
    with pytest.raises(CycloptsError):
        parsed("--data", "a.json", f"--val={share}")


def test_names_come_from_a_file_or_the_line(tmp_path: Path) -> None:
    listed = forms.write(tmp_path / "names.txt", "cat\nguide dog\n", "utf-8-sig")
    assert parsed("--names", listed)[0].names == ("cat", "guide dog")
    assert parsed("--names", "cat, guide dog")[0].names == ("cat", "guide dog")
    assert len(parsed("--names", "coco")[0].names or ()) == 80
    with pytest.raises(CycloptsError):
        parsed("--names", tmp_path / "none.txt")
