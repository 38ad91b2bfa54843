"""structlog, without the tracebacks that it would draw with rich."""

import importlib
import sys
from types import ModuleType
from typing import cast


def load_structlog() -> None:
    """Import structlog as if rich were not installed, before another module imports it.

    It would load rich for tracebacks that `configure_logs` writes plainly: 0.1 s of every start.
    """
    if "rich" in sys.modules or "structlog" in sys.modules:
        return
    # An import of a module that stands for None fails, as that of a missing package does.
    sys.modules["rich"] = cast("ModuleType", None)
    try:
        importlib.import_module("structlog")
    finally:
        del sys.modules["rich"]
