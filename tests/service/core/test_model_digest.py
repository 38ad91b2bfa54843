import hashlib
from pathlib import Path

import onnx
import pytest

from model_export.checksum import short_sha256
from service.core.model_digest import external_files, model_digest
from support.onnx_models import tiny_yolox_model


def saved_in_two_files(folder: Path, logit: float, name: str = "weights.bin") -> Path:
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    model = tiny_yolox_model(objectness_logit=logit)
    onnx.save(model, path, save_as_external_data=True, location=name, size_threshold=0)
    return path


def test_a_model_in_one_file_has_the_digest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(tiny_yolox_model(), path)
    assert model_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["weights.bin", f"{'long' * 40}.data"])
def test_weights_beside_the_file_count(tmp_path: Path, name: str) -> None:
    first = saved_in_two_files(tmp_path / "a", -5.0, name)
    second = saved_in_two_files(tmp_path / "b", -4.0, name)
    again = saved_in_two_files(tmp_path / "c", -5.0, name)
    assert external_files(first.read_bytes()) == [name]
    assert first.read_bytes() == second.read_bytes()
    assert model_digest(first) == model_digest(again) != model_digest(second)
    assert short_sha256(first) != short_sha256(second)


def test_names_outside_the_folder_are_left_alone() -> None:
    entry = b"\x0a\x08location\x12\x09../secret" + b"\x0a\x08location\x12\x0b/etc/passwd"
    assert external_files(entry) == []


def test_missing_weights_are_for_the_runtime_to_tell(tmp_path: Path) -> None:
    path = saved_in_two_files(tmp_path / "a", -5.0)
    (path.parent / "weights.bin").unlink()
    assert model_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
