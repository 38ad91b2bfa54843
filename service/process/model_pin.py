"""Keeping all workers of a server on one model, though its file be replaced."""

from pathlib import Path
from typing import Final

from service.core.model_digest import model_digest
from service.errors import StartupError

PIN_FILE: Final = "model-digest"


class ModelPin:
    """The digest of the model that the first worker loaded.

    Args:
        folder: The folder that the workers share.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / PIN_FILE

    def check(self, model: Path) -> None:
        """See that a model file is the one that the other workers have; the first one pins it.

        Raises:
            StartupError: It is another.
        """
        try:
            digest = model_digest(model)
        except OSError as error:
            raise StartupError(f"cannot read the model file {model}: {error.strerror}") from error
        if not self._file.exists():
            self._file.write_text(digest)
        elif self._file.read_text() != digest:
            raise StartupError(
                f"{model} has changed since the other workers loaded it; restart the server to "
                "serve the new model"
            )
