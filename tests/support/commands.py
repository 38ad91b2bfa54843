"""Commands of `model_export`, run without the program around them."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.console import command_app


def bound(run: Callable[..., object], *arguments: str | Path) -> inspect.BoundArguments:
    """The arguments of a command as its function is given them; wrong ones are CycloptsErrors."""
    app = command_app("test")
    app.default(run)
    given = [str(argument) for argument in arguments]
    return app.parse_args(given, exit_on_error=False, print_error=False)[1]


def call(run: Any, *arguments: str | Path) -> None:
    """Run a command whose errors are raised, not printed."""
    parsed = bound(run, *arguments)
    run.__wrapped__(*parsed.args, **parsed.kwargs)
