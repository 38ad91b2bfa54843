"""Decoded images are kept in memory, if there is room, and no longer than they are used."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model_export.data.annotations import AnnotatedImage
from model_export.data.image_cache import ImageCache, ram_folder
from model_export.errors import ModelExportError
from model_export.memory import amount, available_memory
from support.pictures import encode, photo_like


def image(folder: Path) -> AnnotatedImage:
    path = folder / "a.png"
    path.write_bytes(encode(photo_like(60, 40)))
    return AnnotatedImage(path, 1, (40, 60), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


def test_folder_in_memory_is_shared_and_gone_afterwards(tmp_path: Path) -> None:
    with ram_folder("run", tmp_path) as first, ram_folder("run", tmp_path) as second:
        assert first == second
        assert (first / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_folder_of_a_killed_process_is_removed_and_others_stay(tmp_path: Path) -> None:
    left = tmp_path / "yolox-serve-cache-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "image.npy").touch()

    with ram_folder("one", tmp_path) as one, ram_folder("two", tmp_path):
        assert not left.exists()
        assert one.exists()


def test_system_without_folders_in_memory_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match="--cache DIR"), ram_folder("a", tmp_path / "none"):
        pass


def test_images_that_do_not_fit_are_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, cache = image(tmp_path), ImageCache(tmp_path / "cache")
    cache.prepare()
    needed = 40 * 60 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))

    with pytest.raises(ModelExportError, match="take 0 MB, and 0 MB are free"):
        cache.refuse_too_large([photo])
    cache.read(photo.path)
    cache.refuse_too_large([photo])  # it is there already


def test_memory_is_what_machine_and_container_leave(tmp_path: Path) -> None:
    meminfo, groups, own = tmp_path / "meminfo", tmp_path / "groups", tmp_path / "own"
    assert available_memory(meminfo, groups, own) is None
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert available_memory(meminfo, groups, own) == 5000 * 1024
    (groups / "job").mkdir(parents=True)
    own.write_text("0::/job\n")
    (groups / "job" / "memory.max").write_text("max\n")
    (groups / "job" / "memory.current").write_text("100\n")
    assert available_memory(meminfo, groups, own) == 5000 * 1024
    (groups / "job" / "memory.max").write_text("3000\n")
    assert available_memory(meminfo, groups, own) == 2900
    assert (amount(2.5e9), amount(3e6)) == ("2.5 GB", "3 MB")
