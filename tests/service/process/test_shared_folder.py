"""The workers' folder: it goes with the last process, however the server ended."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from service.process.shared_folder import FolderLock, remove_left_folders, shared_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_goes_with_the_context_and_with_an_error(temporary: Path) -> None:
    with shared_folder() as folder:
        (folder / "file").write_text("x")
        assert folder.name.startswith("yolox-metrics-")
    with pytest.raises(KeyboardInterrupt), shared_folder():
        raise KeyboardInterrupt
    assert list(temporary.iterdir()) == []


KILLED = """
import os, signal, sys
from service.process.shared_folder import shared_folder
with shared_folder() as folder:
    (folder / "file").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_folder_of_a_server_that_was_killed_goes_at_the_next_start(temporary: Path) -> None:
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert len(list(temporary.glob("yolox-metrics-*"))) == 1
    with shared_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_the_folder_of_a_server_that_lives_stays(temporary: Path) -> None:
    with shared_folder() as folder:
        remove_left_folders()
        worker = FolderLock(folder)
        worker.remove_if_last()
        assert folder.is_dir()


def test_the_last_worker_removes_the_folder_of_a_supervisor_that_is_gone(temporary: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="yolox-metrics-"))
    first, second = FolderLock(folder), FolderLock(folder)
    first.remove_if_last()
    assert folder.exists()
    second.remove_if_last()
    assert not folder.exists()


def test_what_others_have_there_stays(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / "yolox-metrics-link").symlink_to(elsewhere)
    (temporary / "yolox-metrics-file").write_text("x")
    remove_left_folders()
    assert {path.name for path in temporary.iterdir()} == {
        "elsewhere",
        "yolox-metrics-link",
        "yolox-metrics-file",
    }


def test_a_folder_that_was_removed_before_it_was_locked_is_not_held(temporary: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="yolox-metrics-"))
    lock = FolderLock(folder)
    assert lock.is_held
    folder.rmdir()
    assert not lock.is_held
    folder.mkdir()
    assert not lock.is_held
