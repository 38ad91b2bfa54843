"""The settings as flags: names, help and panels are those of the settings."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar, get_args, get_origin

from cyclopts import Group, Parameter, Token
from pydantic.fields import FieldInfo

from service.settings import Settings

Command = TypeVar("Command", bound=Callable[..., int])

# The first setting of each panel of `--help`; those that follow it in `Settings` belong to it.
PANELS: Final = {
    "model": Group("The model and where it runs", sort_key=1),
    "host": Group("Network and processes", sort_key=2),
    "max_connections": Group("Limits on requests", sort_key=3),
    "confidence": Group("Defaults of the request's options", sort_key=4),
    "max_failed_probes": Group("Life cycle", sort_key=5),
}
METAVARS: Final[dict[object, str]] = {int: "N", float: "NUMBER", Path: "PATH"}


def takes_settings(function: Command) -> Command:
    """Give a function whose `**flags` are settings a signature that names every setting.

    The function is called with those that are given, as text or bool; `Settings` parses them.
    """
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    signature = inspect.Signature([*own, *_settings_parameters()])
    function.__dict__["__signature__"] = signature
    return function


def _settings_parameters() -> Iterator[inspect.Parameter]:
    panel = next(iter(PANELS.values()))
    for name, field in Settings.model_fields.items():
        panel = PANELS.get(name, panel)
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(field, panel),
        )


def _annotation(field: FieldInfo, panel: Group) -> object:
    """The annotation of a setting's flag; its value stays text, which `Settings` checks."""
    plain = _plain_type(field.annotation)
    shown = Parameter(help=field.description, group=panel, show_default=_default(field))
    if plain is bool:
        return Annotated[bool | None, shown]
    taken = Parameter(
        choices=plain if get_origin(plain) is Literal else None,
        metavar=_metavar(plain),
        converter=_path if plain is Path else _text,
    )
    return Annotated[Path | None if plain is Path else str | None, shown, taken]


def _plain_type(annotation: object) -> object:
    """The type of a setting that may also be None."""
    if get_origin(annotation) is Literal:
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is Annotated or len(kinds) == 1:
        return _plain_type(kinds[0])
    return annotation


def _default(field: FieldInfo) -> str | Literal[False]:
    """The default that help shows; the description says what an unset setting means."""
    if field.default is None:
        return False
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return str(field.default)


def _metavar(plain: object) -> str:
    if get_origin(plain) is Literal:
        return "CHOICE"
    return METAVARS.get(plain, "TEXT")


def _text(_: object, tokens: Sequence[Token]) -> str:
    return tokens[-1].value


def _path(_: object, tokens: Sequence[Token]) -> Path | None:
    """A path; an empty one is unset, not the current folder."""
    return Path(tokens[-1].value) if tokens[-1].value else None
