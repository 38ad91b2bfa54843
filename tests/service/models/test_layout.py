"""Mistakes in the layout of a model repository, each told with what mends it."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.errors import StartupError
from service.models.files import FaultLog
from service.models.repository import RepositoryModel, candidates, scan


def lay(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["model.onnx"], "model.onnx is not in the folder of a version; put it there, such as at "),
        (
            ["a/model.onnx"],
            "a/model.onnx is not in the folder of a version; put it there, such as ",
        ),
        (["a/v5/model.onnx"], "a/v5 is no version, for a version is a whole number; if it is one"),
        (["a/1/yolox.onnx"], "a/1 holds no model.onnx; rename yolox.onnx, or remove the folder"),
        (["a/1/notes.txt"], "a/1 holds no model.onnx; put the model there, or remove the folder"),
        (["a/1"], "a/1 is not in the folder of a version; put it there, such as at a/1/model.onnx"),
        (["a/1/model.onnx/x"], "a/1/model.onnx is a folder; it must be the ONNX file itself"),
        (["a/README.md"], "a holds no version; put the model at a/1/model.onnx"),
    ],
)
def test_what_is_left_out_is_told(tmp_path: Path, files: list[str], told: str) -> None:
    lay(tmp_path, "good/3/model.onnx", "good/README.md", "README.md", *files)
    looked = scan(tmp_path)
    assert [*looked.models] == ["good"]
    (fault,) = looked.faults
    assert fault.startswith(f"{tmp_path}/{told}")


@pytest.mark.parametrize("place", ["a", "a/1", "a/1/model.onnx"])
def test_a_link_to_nothing_is_told(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to("nowhere")
    assert scan(tmp_path).faults == [
        f"{tmp_path}/{place} is a link to nothing (nowhere); put the model there, or remove it"
    ]


def test_what_is_no_regular_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "a" / "1" / "model.onnx")
    (fault,) = scan(tmp_path).faults
    assert "is no regular file; it must be the ONNX file itself" in fault


def test_a_version_that_cannot_be_read_now_stays_and_another_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "a/1/model.onnx")
    before = scan(tmp_path).models
    lay(tmp_path, "a/2/model.onnx")
    really = Path.stat

    def stat(path: Path, **named: bool) -> os.stat_result:
        if path.name == "model.onnx":
            raise PermissionError(13, "Permission denied")
        return really(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    looked = scan(tmp_path, before)
    assert looked.models == before == {"a": RepositoryModel(before["a"].files)}
    assert [fault.partition("; ")[2] for fault in looked.faults] == [
        "what was loaded from it stays",
        "it is left out",
    ]


def test_a_start_that_finds_no_model_says_which_mistake_there_is(tmp_path: Path) -> None:
    lay(tmp_path, "a/model.onnx")
    with pytest.raises(StartupError, match=r"no model in the layout .*; .*a/model\.onnx is not in"):
        candidates(tmp_path, None, {})


def test_polling_tells_a_fault_at_the_second_look_and_an_unreadable_repository_once() -> None:
    """The folder of a version has no file yet while one is being copied into it."""
    faults = FaultLog()
    with capture_logs() as lines:
        faults.tell(["a"], settled_only=True)
        assert lines == []
        faults.tell(["a", "b"], settled_only=True)
        faults.stay("no repository")
        faults.stay("no repository")
        faults.tell(["a"], settled_only=True)
        faults.stay("no repository")
    told = ["a", "no repository", "no repository"]
    assert [line["reason"] for line in lines] == told
