"""The state that all processes of a server agree on: which file each version of a model is."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from service.errors import StartupError
from service.models.repository import ModelFile

STATE_FILE: Final = "models.json"
TURN_FILE: Final = "model-turn"


@dataclass(slots=True)
class SharedState:
    """The findings and decisions of the process that changed models last.

    Attributes:
        digests: SHA-256 of each file that was loaded, by its place.
        seen: The versions of each model that there were.
        unloaded: Models that were unloaded by a call.
    """

    digests: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    unloaded: list[str] = field(default_factory=list)


class StateFile:
    """The state of a server's models, in the folder that its processes share.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / STATE_FILE
        self._turn = folder / TURN_FILE

    def read(self) -> SharedState:
        """The state that was written last; empty if there is none."""
        try:
            return SharedState(**json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return SharedState()

    def check(self, file: ModelFile) -> None:
        """See that a file is what the other processes have loaded; the first one's counts.

        Raises:
            StartupError: It is another, or cannot be read.
        """
        digest, place = file.digest(), file.place
        with self.turn():
            state = self.read()
            if state.digests.setdefault(place, digest) != digest:
                raise StartupError(
                    f"{file.path} has changed since the other workers loaded it; SIGHUP has all of "
                    "them load it"
                )
            self.write(state)

    def write(self, state: SharedState) -> None:
        """Replace the state atomically; the caller has its turn."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(asdict(state)), encoding="utf-8")
        new.replace(self._file)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process changes models, and keep the others from it meanwhile."""
        with self._turn.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
