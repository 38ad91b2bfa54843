"""Short names for exact contents."""

import hashlib
from pathlib import Path

from model_export.errors import ModelExportError


def short_digest(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256.

    Raises:
        ModelExportError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise ModelExportError(f"cannot read {path}: {error.strerror}") from error
