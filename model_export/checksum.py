"""SHA-256 checksums of files."""

import hashlib
from pathlib import Path

from model_export.errors import ModelExportError


def sha256_of(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_sha256(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256, which serve as a model's version.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        return sha256_of(path)[:12]
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error
