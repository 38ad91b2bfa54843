"""`python -m model_export preview` shows what a training would see."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from model_export.commands import preview
from model_export.errors import ModelExportError
from support.data_sets import voc_folder


@pytest.fixture
def parser() -> Iterator[argparse.ArgumentParser]:
    parser = argparse.ArgumentParser()
    preview.add_arguments(parser)
    return parser


def test_a_sheet_shows_every_sample(
    tmp_path: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))], "b": []})
    output = tmp_path / "sheet.png"
    options = f"--data {root} --output {output} --count 5 --columns 3 --size 96 --mosaic 0.5"

    preview.run(parser.parse_args(options.split()))

    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert "2 images (1 without boxes), 1 boxes" in captured.err
    with Image.open(output) as image:
        assert image.size == (3 * 100 - 4, 2 * 100 - 4)


def test_a_sheet_that_cannot_be_written_is_an_error(
    tmp_path: Path, parser: argparse.ArgumentParser
) -> None:
    root = voc_folder(tmp_path / "voc", {"a": [("dog", (5, 5, 50, 35))]})
    options = f"--data {root} --output {tmp_path / 'none' / 'sheet.png'} --size 64"
    with pytest.raises(ModelExportError, match="cannot write"):
        preview.run(parser.parse_args(options.split()))


@pytest.mark.parametrize(
    "option", ["--count 0", "--size 100", "--variant huge", "--seed -1", "--multiscale 1"]
)
def test_options_without_a_meaning_are_refused(
    parser: argparse.ArgumentParser, option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(f"--data a.json --output b.png {option}".split())
