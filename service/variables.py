"""Environment variables that look like a setting and are none."""

from collections.abc import Iterable
from difflib import get_close_matches

from service.settings import Settings

# Compose files and other commands read these from the same environment.
OTHER_VARIABLES = {
    "YOLOX_CONFIG",
    "YOLOX_CPUS",
    "YOLOX_DATA",
    "YOLOX_EXPORT_MEMORY",
    "YOLOX_MEMORY",
    "YOLOX_MODEL_NAME",
    "YOLOX_RELEASE_URL",
}


def unknown_variables(environment: Iterable[str]) -> dict[str, str | None]:
    """Variables that look like a setting and are none, each with the setting that was meant.

    Args:
        environment: Names of environment variables.

    Returns:
        For each such name the closest name of a setting, or None if none is close.
    """
    prefix, known = "YOLOX_", [name.upper() for name in Settings.model_fields]
    found = [name for name in environment if name.upper().startswith(prefix)]
    meant: dict[str, str | None] = {}
    for name in found:
        own = name.upper().removeprefix(prefix)
        if own not in known and name not in OTHER_VARIABLES:
            close = get_close_matches(own, known, 1)
            meant[name] = prefix + close[0] if close else None
    return meant
