"""Programs that a test runs beside the server."""

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
