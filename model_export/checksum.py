"""SHA-256 checksums of files."""

import hashlib
from pathlib import Path

from model_export.errors import ModelExportError
from service.core.model_digest import model_digest


def sha256_of(path: Path) -> str:
    """The SHA-256 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_sha256(path: Path) -> str:
    """The first 12 hexadecimal digits of a model's SHA-256, which serve as its version.

    Args:
        path: The file. Weights that an ONNX file keeps in files beside it count as well.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        return model_digest(path)[:12]
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error
