"""The categories of a COCO json: those that stand for classes, and those that only group others."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

# A number that is written in one way only.
NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,17}")
# An entry of the json, and how messages name it.
Entry = tuple[str, Mapping[str, Any]]


def identifier(entry: Mapping[str, Any], name: str, at: str) -> int:
    """The id that an entry has under a name; any text or number serves as one.

    Raises:
        ValueError: It has none; the message begins with `at`.
    """
    value = entry.get(name)
    if value is None:
        raise ValueError(f"{at} has no {name}")
    if not isinstance(value, int | float | str):
        raise ValueError(f"{at} has the {name} {json.dumps(value)}, which is no id")  # noqa: TRY004
    # Some tools write a number as text in one list, and not in another.
    return int(value) if NUMBER.fullmatch(str(value)) else cast("int", value)


def without_twins(
    entries: Iterable[Entry], annotations: Sequence[object]
) -> tuple[list[Entry], list[str]]:
    """Leave out groups without boxes that are called like a category with boxes.

    Roboflow writes one for the project, whose name may be that of a class.

    Args:
        entries: The categories.
        annotations: The annotations, unchecked.

    Returns:
        The other categories, and a note for each that is left out.
    """
    every = list(entries)
    used = {str(each.get("category_id")) for each in annotations if isinstance(each, dict)}
    names = {str(entry.get("name")) for _, entry in every if str(entry.get("id")) in used}
    names &= {str(entry.get("supercategory")) for _, entry in every}
    kept, notes = list[Entry](), list[str]()
    for at, entry in every:
        if str(entry.get("id")) in used or str(entry.get("name")) not in names:
            kept.append((at, entry))
        else:
            notes.append(
                f"left out the category {entry.get('id')}: it has no boxes, and another one is "
                f"called {entry['name']!r}, too"
            )
    return kept, notes


def categories_of(entries: Iterable[Entry]) -> dict[int, str]:
    """Category id to name; models are matched by name, so that two of one name are refused.

    Raises:
        ValueError: One has no name, or two have the same name or id.
    """
    ids = dict[str, int]()
    for at, entry in entries:
        category, name = identifier(entry, "id", at), entry.get("name")
        if name is None or not str(name).strip():
            raise ValueError(f"{at} has no name")
        if not isinstance(name, str | int | float):
            raise ValueError(f"{at} has the name {json.dumps(name)}, which is no text")  # noqa: TRY004
        if ids.setdefault(str(name), category) != category:
            raise ValueError(
                f"categories {ids[str(name)]} and {category} are both called {name}; give each a "
                "name of its own, or merge them"
            )
    names = {category: name for name, category in ids.items()}
    if len(names) < len(ids):
        raise ValueError("two categories have the same id")
    return names


def unused_groups(entries: Sequence[Entry], used: Collection[int]) -> set[int]:
    """The ids of categories that only group others.

    Args:
        entries: The categories, which have ids and names.
        used: The ids of those that have boxes.
    """
    every = [entry for _, entry in entries]
    groups = {
        str(entry.get("supercategory"))
        for entry in every
        if entry.get("supercategory") != entry["name"]
    }
    ids = {identifier(entry, "id", at): str(entry["name"]) for at, entry in entries}
    unused = {number for number, name in ids.items() if name in groups}.difference(used)
    # Where there would be no class left, they are not groups.
    return unused if unused != ids.keys() else set()
