"""Folders that one process of a run of tests fills for all of them."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` has filled, for reading.

    The processes of pytest-xdist share it: the first makes it, and the others wait for that. Where
    `make` fails, the next one begins with an empty folder.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has a folder of its own in that of the run.
        base = base.parent
    folder = base / name
    with (base / f"{name}.lock").open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        # Empty until it is made.
        if not os.fstat(turn.fileno()).st_size:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            turn.write("made")
    return folder
