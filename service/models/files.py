"""Findings of the last look at the files: those that have come to rest, and mistakes in them."""

from collections.abc import Sequence

import structlog

from service.models.repository import ModelFile, Signature

log = structlog.get_logger(__name__)


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


class FaultLog:
    """Logs each fault of a repository once, until it is mended; it is looked at again and again."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._told: set[str] = set()

    def tell(self, faults: Sequence[str], *, settled_only: bool) -> None:
        """Log what is new.

        Args:
            faults: All that a look has found.
            settled_only: Whether a fault must have been there at the last look: the folder of a
                version has no file yet while one is being written.
        """
        ripe = self._seen & set(faults) if settled_only else set(faults)
        for fault in faults:
            if fault in ripe - self._told:
                log.warning("a part of the model repository is left out", reason=fault)
        self._seen, self._told = set(faults), ripe | (self._told & set(faults))

    def stay(self, fault: str) -> None:
        """Log, once, why the repository cannot be read at all."""
        if fault not in self._told:
            log.error("the models stay as they were", reason=fault)
        self._told.add(fault)
