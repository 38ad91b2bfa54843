"""Decoded images that are kept are the same, and follow their files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model_export.data.image_cache import ImageCache
from model_export.data.image_files import read_image
from model_export.errors import ModelExportError
from support.pictures import encode, photo_like


def test_the_cache_gives_the_same_pixels_and_notices_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    first = cache.read(path)
    with monkeypatch.context() as patch:
        patch.setattr("model_export.data.image_cache.read_image", None)
        np.testing.assert_array_equal(cache.read(path), first)
    assert [entry.suffix for entry in cache.folder.iterdir()] == [".npy"]

    path.write_bytes(encode(photo_like(31, 20, seed=1)))

    np.testing.assert_array_equal(cache.read(path), read_image(path))


def whole_entry_without_its_end(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-1])


def entry_of_no_bytes(entry: Path) -> None:
    entry.write_bytes(b"")


def entry_of_other_values(entry: Path) -> None:
    np.save(entry, np.zeros((20, 30, 3), np.float32))


def entry_in_columns(entry: Path) -> None:
    np.save(entry, np.zeros((20, 30, 3), np.uint8, order="F"))


@pytest.mark.parametrize(
    "damage",
    [whole_entry_without_its_end, entry_of_no_bytes, entry_of_other_values, entry_in_columns],
)
def test_a_damaged_cache_entry_is_made_anew(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    (entry,) = cache.folder.iterdir()
    damage(entry)
    np.testing.assert_array_equal(cache.read(path), read_image(path))
    np.testing.assert_array_equal(np.load(entry), read_image(path))


def test_cached_pixels_cannot_be_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    assert not cache.read(path).flags.writeable


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(photo_like(30, 20)))
    with pytest.raises(ModelExportError, match=r"cannot write the cache .*a\.png"):
        ImageCache(path).read(path)
