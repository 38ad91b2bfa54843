"""Programs that a test runs beside the server."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.qa.rig.programs import MissingProgramError


def needed(find: Callable[..., Path], *arguments: str) -> Path:
    """Path of a program; the test is skipped where it is missing."""
    try:
        return find(*arguments)
    except MissingProgramError as error:
        pytest.skip(str(error))


def on_path_or_unpacked(name: str, unpacked: str) -> str:
    """Path of a program: the one that make put into the environment, else the machine's.

    Args:
        name: Its name.
        unpacked: Its path in the environment.
    """
    own = Path(sys.prefix) / unpacked
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed, and make could not unpack it")
    return found
