"""`traffic.json`: which versions of a model share its requests, and which one shadows them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TRAFFIC_FILE: Final = "traffic.json"
MAX_WEIGHT: Final = 1e9

# The message where a field has another form.
FORMS: Final = {
    "versions": 'versions must hold a weight for each version, such as {"2": 90, "3": 10}',
    "shadow": 'shadow must be one version, in quotes, such as "3"',
    "shadow_share": "shadow_share must be a number above 0 and at most 1",
}


class Traffic(BaseModel):
    """The content of the file.

    Attributes:
        versions: The weight of each version; weights need not add up to anything.
        shadow: A version that sees a sample of the images, and whose answers are only compared.
        shadow_share: The part of the images that it is to see.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: dict[str, Annotated[float, Field(gt=0, le=MAX_WEIGHT)]] = Field(default_factory=dict)
    shadow: str | None = None
    shadow_share: float = Field(1.0, gt=0, le=1)

    @property
    def named(self) -> tuple[str, ...]:
        """The versions that answer requests or shadow them."""
        return (*self.versions, *([self.shadow] if self.shadow else []))

    def among(self, usable: Sequence[str]) -> "Traffic":
        """The traffic of the versions that can be used: by weight, else all to the newest.

        Args:
            usable: Those versions, oldest first.
        """
        weights = {each: self.versions[each] for each in self.versions if each in usable}
        others = [each for each in usable if each != self.shadow]
        if not weights and others:
            weights = {others[-1]: 1.0}
        shadow = self.shadow if self.shadow in usable else None
        return Traffic(versions=weights, shadow=shadow, shadow_share=self.shadow_share)

    def by_choice(self, versions: Sequence[str]) -> list[str]:
        """The versions that may serve, in the order in which a start tries them.

        Those with a weight come first, the newest of each kind before the others.

        Args:
            versions: The versions that there are, oldest first.
        """
        newest_first = [each for each in reversed(versions) if each != self.shadow]
        return sorted(newest_first, key=lambda each: each not in self.versions)


NO_TRAFFIC: Final = Traffic()


def read_traffic(file: Path, versions: Sequence[str]) -> tuple[Traffic | None, str]:
    """The part of a traffic file that can be used, and what is wrong with the rest.

    Args:
        file: The file; without one, the newest version has all the traffic.
        versions: The versions that there are, oldest first.

    Returns:
        None for the traffic if nothing in the file can be used, and an empty text if all can.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return (None, f"{file} is a link to nothing") if file.is_symlink() else (NO_TRAFFIC, "")
    except OSError as error:
        return None, f"{file} cannot be read: {error.strerror}"
    try:
        given, problems = _understood(_parsed(content))
    except ValueError as error:
        return None, f"{file}: {error}"
    if given is not None:
        given, absent = _what_is_there(given, versions)
        problems += absent
    return given, f"{file}: {'; '.join(problems)}" if problems else ""


def _parsed(content: bytes) -> object:
    """The JSON of a file.

    Raises:
        ValueError: It is none; the text says so in plain words.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8; save it as UTF-8") from error
    if not text.strip():
        raise ValueError("it is empty; remove it, or write JSON into it")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"it is not valid JSON; look at {place}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("its JSON has a number too long, or too many brackets") from error


def _understood(given: object) -> tuple[Traffic | None, list[str]]:
    """The traffic without the fields that are wrong; None if no version is left with a weight."""
    try:
        return Traffic.model_validate(given), []
    except ValidationError as error:
        faults = error.errors()
    problems = [_plain(faults[0])]
    if not isinstance(given, dict):
        return None, problems
    wrong = {fault["loc"][:2] for fault in faults}
    sound = {field: value for field, value in given.items() if (field,) not in wrong}
    weights = sound.get("versions", {}).items()
    sound["versions"] = {
        each: weight for each, weight in weights if ("versions", each) not in wrong
    }
    return (Traffic.model_validate(sound) if sound["versions"] else None), problems


def _what_is_there(given: Traffic, versions: Sequence[str]) -> tuple[Traffic, list[str]]:
    """The traffic without versions that are missing, and without a shadow of itself."""
    weights = {each: given.versions[each] for each in given.versions if each in versions}
    missing = sorted(set(given.named) - set(versions))
    problems = [_missing(missing, versions)] if missing else []
    shadow = given.shadow if given.shadow in versions else None
    if shadow in given.versions or [*versions] == [shadow]:
        problems.append(
            f"version {shadow} cannot be the shadow, for it answers requests itself; name another "
            "version, or give this one no weight"
        )
        shadow = None
    return given.model_copy(update={"versions": weights, "shadow": shadow}), problems


def _missing(missing: Sequence[str], versions: Iterable[str]) -> str:
    there = ", ".join(versions) or "none"
    return f"there is no version {' or '.join(missing):.200}; there are {there}"


def _plain(fault: Any) -> str:  # noqa: ANN401 - pydantic's finding
    """The fault by the place of it: pydantic's own words are those of programmers."""
    match fault["loc"]:
        case ():
            return 'it must be a JSON object such as {"versions": {"2": 90, "3": 10}}'
        case (field,) if field not in FORMS:
            return f"unknown field {field!r:.80}; the fields are {', '.join(FORMS)}"
        case ("versions", version, *_):
            return (
                f"the weight of version {version:.80} must be a number above 0 and at most "
                f"{MAX_WEIGHT:,.0f}, and is {json.dumps(fault['input']):.40}"
            )
        case (field, *_):
            return FORMS[field]
        case _:
            return "it cannot be understood"
