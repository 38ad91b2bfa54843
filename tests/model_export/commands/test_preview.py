"""`python -m model_export preview` shows what a training would see."""

from pathlib import Path

import pytest
from cyclopts import CycloptsError
from PIL import Image

from model_export.commands import preview
from model_export.errors import ModelExportError
from support.commands import bound, call
from support.data_sets import voc_folder


def test_a_sheet_shows_every_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))], "b": []})
    output = tmp_path / "sheet.png"
    options = f"--data {root} --output {output} --count 5 --columns 3 --size 96 --mosaic 0.5"

    call(preview.run, *options.split())

    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "2 images (1 without boxes), 1 boxes" in captured.err
    with Image.open(output) as image:
        assert image.size == (3 * 100 - 4, 2 * 100 - 4)


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))]})
    options = f"--data {root} --output {tmp_path / 'none' / 'sheet.png'} --size 64"
    with pytest.raises(ModelExportError, match="cannot write"):
        call(preview.run, *options.split())


@pytest.mark.parametrize(
    "option", ["--count 0", "--size 100", "--variant huge", "--seed -1", "--multiscale 1"]
)
def test_options_without_a_meaning_are_refused(option: str) -> None:
    with pytest.raises(CycloptsError):
        bound(preview.run, *f"--data a.json --output b.png {option}".split())
