"""Lists in the text of a setting."""

import re


def split_list(text: str | None) -> tuple[str, ...]:
    """The items of a setting that commas separate."""
    return tuple(item for part in (text or "").split(",") if (item := part.strip()))


def split_keys(text: str) -> tuple[str, ...]:
    """The API keys that commas or line feeds separate.

    Raises:
        ValueError: A header could not carry one of them, or one is empty.
    """
    keys = tuple(re.split("[,\n]", text))
    if any(not key or re.search(r"[\s\x00-\x1f\x7f]", key) for key in keys):
        raise ValueError(
            "keys must not be empty, and must have no white space and no control characters"
        )
    return keys
