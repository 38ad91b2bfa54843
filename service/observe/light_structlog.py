"""Imports structlog as if rich were not installed, before another module imports it.

It would load rich for tracebacks, which `configure_logs` writes plainly: 0.1 s of every start, and
several MB. Import this module for that alone.
"""

import importlib
import sys
from types import ModuleType
from typing import cast

if sys.modules.keys().isdisjoint({"rich", "structlog"}):
    # The import of a name that stands for None fails, as that of a missing package does.
    sys.modules["rich"] = cast("ModuleType", None)
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
