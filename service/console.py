"""How every command of the project speaks: grouped help, one line for an error, exit codes."""

import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from cyclopts import App, CycloptsError, Group
from cyclopts.exceptions import UnusedCliTokensError

import service

WRONG_USAGE: Final = 2
# Shells report this for a command that Ctrl-C ended.
INTERRUPTED: Final = 130
HELP_PANEL: Final = Group("Help", sort_key=1000)


def command_app(name: str, help_text: str | None = None, epilogue: str | None = None) -> App:
    """Make an application whose help is grouped and whose errors `run` reports.

    Args:
        name: The words that start it, for usage lines.
        help_text: Its help, in Markdown; a single command's is its docstring.
        epilogue: The last lines of its help, such as an example, in Markdown.
    """
    app = App(
        name=name,
        help=help_text,
        help_format="markdown",
        help_epilogue=epilogue,
        version=service.__version__,
        suppress_keyboard_interrupt=False,
    )
    for flag in (*app.help_flags, *app.version_flags):
        app[flag].group = HELP_PANEL
    return app


def run(app: App, arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Returns:
        The exit code: the command's own, 0 if it has none, 2 for wrong usage, 130 after Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in app.help_flags:
        _load_commands(app)
    try:
        result = app(
            _joined(given), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        print_error(f"{_sentence(error)} (see `{_advice(app, error)}`)")
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def print_error(message: str) -> None:
    """Print an error as one line, even if its message has several."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")


def _load_commands(app: App) -> None:
    """Import every command: the list of commands shows what their functions say of themselves."""
    for name in app:
        app[name]


def _joined(arguments: Iterable[str]) -> list[str]:
    """Write `--flag false` as `--flag=false`; alone, a flag that is on or off takes no value."""
    joined: list[str] = []
    for before, argument in pairwise(("", *arguments)):
        if before.startswith("--") and "=" not in before and argument.lower() in ("true", "false"):
            joined[-1] = f"{before}={argument}"
        else:
            joined.append(argument)
    return joined


def _sentence(error: CycloptsError) -> str:
    """The fault, and the word that was probably meant."""
    if isinstance(error, UnusedCliTokensError):
        return f"`{' '.join(error.unused_tokens or ())}` is more than it takes"
    text = re.sub(r"\. Did you mean (.*)\?", r"; did you mean \1?", str(error))
    return f"{text[:1].lower()}{text[1:].removesuffix('.')}"


def _advice(app: App, error: CycloptsError) -> str:
    return " ".join((app.name[0], *(error.command_chain or ()), "--help"))
