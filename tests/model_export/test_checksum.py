"""Checksums identify weights, and name a model's version."""

from pathlib import Path

import pytest

from model_export.checksum import sha256_of, short_sha256
from model_export.errors import ModelExportError

# FIPS 180-4's example of the three letters.
OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_checksum_is_the_standards_example(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")

    assert sha256_of(path) == OF_ABC
    assert short_sha256(path) == OF_ABC[:12]


def test_checksum_of_a_missing_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelExportError, match=r"cannot read .*gone"):
        short_sha256(tmp_path / "gone")
