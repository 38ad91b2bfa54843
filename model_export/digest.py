"""A short name for exact weights."""

import hashlib
from pathlib import Path

from model_export.errors import ModelExportError


def short_digest(path: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a file of weights.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ModelExportError(f"cannot read weights from {path}: {error.strerror}") from error
