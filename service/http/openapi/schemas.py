"""Small changes to JSON schemas."""

from typing import Any


def without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of an optional value as queries and forms have it: absent, but never null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    others = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    if not kinds:
        return schema
    return others | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})
