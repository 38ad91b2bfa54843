"""How every command of the project speaks: grouped help, one line for an error, exit codes."""

import io
import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

import service

WRONG_USAGE: Final = 2
# Shells report this for a command that Ctrl-C ended.
INTERRUPTED: Final = 130
# Cyclopts' words for a fault, and plainer ones.
PLAINER: Final = (
    (r"^(?:Command \".*?\" p|P)arameter ", ""),
    (r"^Invalid values for group [^.]*\. ", ""),
    (r"requires an argument", "needs a value"),
    (r"requires (\d+) positional arguments\.(?: Only got (\d+)\.)?", r"needs \1 values"),
    (r"\. Did you mean (.*)\?", r"; did you mean \1?"),
    (r"\. Choose from:", "; choose from"),
    # A list of a TOML file, and then other values.
    (r"unable to convert \"(\[.*\])\" into .*", r"\1 is a list; write one value"),
    (r"unable to convert \"(.*)\" into int\b.*", r"\1 is not a whole number"),
    (r"unable to convert \"(.*)\" into float\b.*", r"\1 is not a number"),
    (r"unable to convert \"(.*)\" into Literal\[(.*?)\].*", r"\1 is none of \2"),
    (r"\"?\[([\w-]+)\]\"?(?= from |:)", r"\1"),
    (r"\. Available commands:", "; there are"),
)
# How much a word has to resemble a flag.
CLOSE: Final = 0.75
HELP_PANEL: Final = Group("Help", sort_key=1000)


def command_app(name: str, help_text: str | None = None) -> App:
    """Make an application whose help is grouped and whose errors `run` reports.

    Args:
        name: The words that start it, for usage lines.
        help_text: Its help, in Markdown; a single command's is its docstring.
    """
    app = App(
        name=name,
        help=help_text,
        help_format="markdown",
        version=service.__version__,
        default_parameter=Parameter(
            negative_iterable=(), show_default=_shown_default, allow_repeating=True
        ),
        group_arguments=Group("Arguments", sort_key=-1),
        group_parameters=Group("Options", sort_key=0),
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may have bytes that are no characters.
        sys.stdout.reconfigure(errors="backslashreplace")
    if not given or given[0] in app.help_flags:
        _load_commands(app)
    try:
        result = app(
            _joined(given), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        print_error(f"{_hinted(_sentence(error), app, given)} (see `{_advice(app, error)}`)")
        return WRONG_USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return result if isinstance(result, int) else 0


def print_error(message: str) -> None:
    """Print an error as one line, even if its message has several."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")


def print_note(message: str) -> None:
    """Print a line for people, unless it is empty."""
    if message:
        sys.stderr.write(f"{message}\n")


def _shown_default(value: object) -> str | None:
    """A default as help shows it: not at all if nothing is set by default."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return None if value in (None, (), "") else str(value)


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
    text = str(error)
    for pattern, plain in PLAINER:
        text = re.sub(pattern, plain, text)
    if isinstance(error, MissingArgumentError) and not error.keyword:
        text = text.replace("needs a value", "is missing")
    # Not the metavariables, such as SOURCE, that a text may begin with.
    first = text[:1].lower() if text[1:2].islower() else text[:1]
    return f"{first}{text[1:].removesuffix('.')}"


def _hinted(sentence: str, app: App, given: Sequence[str]) -> str:
    """The fault with a hint at a flag of the application itself, which Cyclopts never offers."""
    flags = [flag for flag in (*app.help_flags, *app.version_flags) if flag.startswith("--")]
    for word in given:
        close = get_close_matches(word, flags, 1, CLOSE) if word.startswith("--") else []
        if close and word not in flags and word in sentence:
            fault = re.split(r"; (?:did you mean|there are) ", sentence)[0]
            return f"{fault}; did you mean {close[0]}?"
    return sentence


def _advice(app: App, error: CycloptsError) -> str:
    return " ".join((app.name[0], *(error.command_chain or ()), "--help"))
