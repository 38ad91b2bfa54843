"""Which files have come to rest, so that none is read while it is being written."""

from service.models.repository import ModelFile, Signature


class FileWatch:
    """The signatures of files at the last look and at this one."""

    def __init__(self) -> None:
        self._before: dict[ModelFile, Signature] = {}
        self._now: dict[ModelFile, Signature] = {}
        self._settled_only = False

    def look(self, *, settled_only: bool) -> None:
        """Begin a look.

        Args:
            settled_only: Whether a file must have been the same at the last look.
        """
        self._before, self._now = self._now, {}
        self._settled_only = settled_only

    def is_settled(self, file: ModelFile) -> bool:
        """Whether a file may be read now."""
        signature = self._now[file] = file.signature()
        return not self._settled_only or self._before.get(file) == signature
