"""Where the settings come from: flags, the environment, `.env`, mounted secrets, a TOML file."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import (
    DotEnvSettingsSource,
    EnvSettingsSource,
    SecretsSettingsSource,
    SettingsError,
)

from service.settings import Settings
from service.variables import unknown_variables

ENV_FILE: Final = Path(".env")


class WrongSettingError(Exception):
    """A setting has a wrong value, or a file of settings cannot be read; the message says which."""


@dataclass(frozen=True)
class Source:
    """The settings that come from one place.

    Attributes:
        named: How people write a setting there, with `{flag}`, `{variable}` or `{name}` for it.
        values: Name of a setting to its value, which `Settings` has not checked yet.
    """

    named: str
    values: Mapping[str, Any]

    def show(self, name: str) -> str:
        """A setting as people write it in this place."""
        flag = f"--{name.replace('_', '-')}"
        return self.named.format(flag=flag, variable=f"YOLOX_{name.upper()}", name=name)


def read_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The settings of every source; of two that set the same, the one named first here counts.

    Flags, environment variables, the file `.env` of the current folder, mounted secrets, the TOML
    file, and last the defaults.

    Args:
        flags: Name of a setting to the value that the command line gives it.
        config: A TOML file of settings.

    Raises:
        WrongSettingError: A value is impossible, or the TOML file cannot be read.
    """
    try:
        sources = [
            Source("{flag}", flags),
            Source("{variable}", EnvSettingsSource(Settings)()),
            Source(f"{{variable}} in {ENV_FILE}", _env_file_values()),
            Source("the secret {variable}", SecretsSettingsSource(Settings)()),
            Source(f"{{name}} in {config}", _toml_values(config) if config else {}),
        ]
    except SettingsError as error:
        raise WrongSettingError(str(error)) from error
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values |= source.values
    try:
        return Settings(**values)
    except ValidationError as error:
        raise WrongSettingError(_explained(error, sources)) from error


def unknown_names() -> dict[str, str | None]:
    """Variables of the environment and of `.env` that look like a setting and are none.

    Returns:
        For each the closest name of a setting, or None if none is close.
    """
    return unknown_variables([*os.environ, *dotenv_values(ENV_FILE)])


def _env_file_values() -> dict[str, Any]:
    """Settings of the file; it may be that of compose, whose other variables are left out."""
    found = DotEnvSettingsSource(Settings, env_file=ENV_FILE, env_file_encoding="utf-8")()
    return {name: value for name, value in found.items() if name in Settings.model_fields}


def _toml_values(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise WrongSettingError(f"cannot read {path}: {why}") from error
    values = {name.replace("-", "_"): _as_setting(value) for name, value in table.items()}
    for name in values.keys() - Settings.model_fields:
        close = get_close_matches(name, Settings.model_fields, 1)
        meant = f"; did you mean {close[0]}?" if close else "; docs/settings.md lists the settings"
        raise WrongSettingError(f"{path}: there is no setting {name}{meant}")
    return values


def _as_setting(value: object) -> object:
    """Lists are written with commas elsewhere; in TOML they may be arrays."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ",".join(value)
    return value


def _explained(error: ValidationError, sources: list[Source]) -> str:
    return "; ".join(
        f"{_where(item['loc'], sources)}{item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    )


def _where(location: tuple[int | str, ...], sources: list[Source]) -> str:
    """The setting as its source writes it; a rule about several settings names them itself."""
    if not location:
        return ""
    name = str(location[0])
    return f"{next(s.show(name) for s in sources if name in s.values)}: "
