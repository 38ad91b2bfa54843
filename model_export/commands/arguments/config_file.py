"""Options of a command in a TOML file that --config names; flags come first."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.config import Dict

from model_export.commands.arguments.argument_types import WrongValueError, parsed_by
from model_export.data.texts import read_text
from model_export.errors import ModelExportError

if TYPE_CHECKING:
    from cyclopts import App, ArgumentCollection

FLAG = "--config"


def toml_file(text: str) -> Path:
    """The path of a TOML file.

    Raises:
        WrongValueError: It cannot be read, or is not TOML.
    """
    read_options(Path(text))
    return Path(text)


def read_options(path: Path) -> dict[str, Any]:
    """The table of a TOML file: names of options, with `_` or `-`, to their values.

    Raises:
        WrongValueError: It cannot be read, is not TOML, or has tables in it.
    """
    try:
        table = tomllib.loads(read_text(path))
    except ModelExportError as error:
        raise WrongValueError(str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise WrongValueError(f"cannot read {path}: {error}") from error
    if FLAG.strip("-") in table:
        raise WrongValueError(f"{path} names another file of options, which only a flag can")
    if tables := [name for name, value in table.items() if isinstance(value, dict)]:
        raise WrongValueError(
            f"{path} has a table, [{tables[0]}]: write the options without tables"
        )
    return table


def options_of_file(app: "App", commands: tuple[str, ...], arguments: "ArgumentCollection") -> None:
    """Give the options of the file to the command; those that have a value keep it."""
    argument, _, _ = arguments.match(FLAG)
    if not argument.tokens:
        return
    path = Path(argument.tokens[-1].value)
    try:
        table = read_options(path)
    except WrongValueError:
        return  # the parser of --config complains
    source = Dict(table, source=str(path), use_commands_as_keys=False)
    source(app, commands, arguments)


ConfigFile = Annotated[
    Path | None,
    parsed_by(toml_file, "FILE"),
    Parameter(
        name=FLAG,
        group=Group("Options", sort_key=0),
        help="TOML file of options, by their names without the dashes; flags come first",
    ),
]
