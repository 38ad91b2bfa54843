"""The folder in which the processes of one server keep their metrics and loads.

Each of them holds a shared lock on it. A process that gets the exclusive lock knows that all others
have ended, however they did, and removes the folder.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "yolox-metrics-"


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A new folder, which is removed with the context; those of servers that were killed go too."""
    remove_left_folders()
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def _locked_folder() -> tuple[Path, "FolderLock"]:
    """A new folder, and the lock on it; another server may remove it before it is locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):
            lock = FolderLock(folder)
            if lock.is_held:
                return folder, lock
            lock.close()


def remove_left_folders() -> None:
    """Remove the folders of servers of this user of which no process lives any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                FolderLock(folder).remove_if_last()


class FolderLock:
    """A share in a folder, which lasts as long as this process at most.

    Args:
        folder: The folder.

    Raises:
        OSError: It is no folder, or not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    @property
    def is_held(self) -> bool:
        """Whether nobody removed the folder before it was locked."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), self._folder.stat())
        return False

    def remove_if_last(self) -> None:
        """Give up the share, and remove the folder if no other process has one."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Give up the share."""
        with suppress(OSError):
            os.close(self._fd)
