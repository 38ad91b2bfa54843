"""Imports the benchmarks, which are scripts outside of the packages and import one another."""

import importlib
import sys
from types import ModuleType
from unittest.mock import patch

from support.project import ROOT

FOLDER = ROOT / "benchmarks"


def benchmark(name: str) -> ModuleType:
    """Import `benchmarks/NAME.py`."""
    with patch.object(sys, "path", [str(FOLDER), *sys.path]):
        return importlib.import_module(name)
