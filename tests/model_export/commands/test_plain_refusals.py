"""Damaged files and wrong encodings are told in plain words, without those of a library."""

from pathlib import Path

import pytest

from model_export.__main__ import main
from model_export.data.class_names import read_class_names
from model_export.errors import ModelExportError
from model_export.model.checkpoint import read_state_dict
from model_export.training.config import TrainingConfig
from model_export.training.state import best_epoch


def test_class_names_may_be_in_utf_16_and_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("größe\nmaß\n\n", encoding="utf-16")
    assert read_class_names(str(path)) == ("größe", "maß")
    path.write_text("cat\ngröße\n", encoding="latin-1")
    with pytest.raises(ModelExportError, match="line 2: the text is not UTF-8; save the file as"):
        read_class_names(str(path))


def test_a_config_file_in_another_encoding_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.toml"
    path.write_text('epochs = 3\noutput = "größe"\n', encoding="latin-1")
    assert main(["train", "--config", str(path)]) == 2
    assert f"{path}, line 2: the text is not UTF-8" in capsys.readouterr().err


def test_cut_checkpoints_are_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(b"PK\3\4" + bytes(200))
    with pytest.raises(ModelExportError, match="is damaged or was cut short; copy it again"):
        read_state_dict(path)
    with pytest.raises(ModelExportError, match="is no training, or it is damaged or was cut short"):
        best_epoch(path)


@pytest.mark.parametrize("text", ["{", '{"epochs": "many"}', "[]"])
def test_a_damaged_configuration_is_told_without_a_librarys_words(text: str) -> None:
    with pytest.raises(ModelExportError, match="no configuration of a training: ") as caught:
        TrainingConfig.from_json(text)
    assert "pydantic" not in str(caught.value)
    assert "type=" not in str(caught.value)


def test_export_names_a_run_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--run", str(tmp_path / "gone")]) == 1
    assert f"there is no folder {tmp_path / 'gone'}" in capsys.readouterr().err
