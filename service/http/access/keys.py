"""The API keys, any of which lets a request through."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from service.errors import StartupError, UnauthorizedError
from service.lists import split_keys
from service.settings import Settings

Headers = Sequence[tuple[bytes, bytes]]


class ApiKeys:
    """The keys that are valid now. Without any key, every request is let through.

    Args:
        given: The keys of the setting `api_key`.
        file: The file that holds more of them, if there is one.

    Attributes:
        valid: The keys.

    Raises:
        StartupError: The file cannot be read, or holds no key that a header could carry.
    """

    def __init__(self, given: Sequence[str] = (), file: Path | None = None) -> None:
        self._given = tuple(given)
        self._file = file
        self.valid = self._read()

    @classmethod
    def of(cls, settings: Settings) -> "ApiKeys":
        """The keys that the settings name."""
        given = settings.api_key
        return cls(
            () if given is None else split_keys(given.get_secret_value()), settings.api_key_file
        )

    @classmethod
    def of_repository(cls, settings: Settings) -> "ApiKeys":
        """The keys of the calls that change which models are served."""
        given = settings.repository_key
        return cls(() if given is None else split_keys(given.get_secret_value()))

    @property
    def file(self) -> Path | None:
        """The file that `reload` reads."""
        return self._file

    def reload(self) -> None:
        """Read the file again; if that fails, the keys stay as they were.

        Raises:
            StartupError: As at the start.
        """
        self.valid = self._read()

    def check(self, headers: Headers) -> None:
        """Let a request through that brings a valid key.

        Raises:
            UnauthorizedError: The key is missing or wrong.
        """
        if self.valid and not self._is_valid(_offered(headers)):
            raise UnauthorizedError("send the key as X-API-Key, or as Authorization: Bearer")

    def _is_valid(self, offered: bytes) -> bool:
        """Whether this is a valid key; every key is compared, so the time tells nothing."""
        return sum(secrets.compare_digest(offered, key) for key in self.valid) > 0

    def _read(self) -> tuple[bytes, ...]:
        keys = self._given if self._file is None else (*self._given, *_keys_in(self._file))
        return tuple(key.encode() for key in keys)


def _keys_in(file: Path) -> tuple[str, ...]:
    """The keys of a file; blank lines, and spaces around keys, are no part of them."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise StartupError(f"cannot read the API keys in {file}: {reason}") from error
    parts = [part.strip() for line in text.splitlines() for part in line.split(",")]
    try:
        keys = split_keys(",".join(part for part in parts if part))
    except ValueError as error:
        raise StartupError(
            f"{file}: {error if any(parts) else 'the file holds no API key'}"
        ) from error
    return keys


def _offered(headers: Headers) -> bytes:
    fields = dict(reversed(list(headers)))  # the first of a name counts
    scheme, _, token = fields.get(b"authorization", b"").partition(b" ")
    return fields.get(b"x-api-key") or (token.strip() if scheme.lower() == b"bearer" else b"")
