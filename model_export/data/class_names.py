"""Class names: the eighty of COCO, or those in a text file."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from model_export.data.texts import read_text
from model_export.errors import ModelExportError
from yolox_client.coco import NAMES

COCO_CLASS_NAMES: Final = NAMES
NUMBER_BEFORE: Final = re.compile(r"(\d+)\s*[:,;=\s]\s*\S")


def read_class_names(source: str) -> tuple[str, ...]:
    """Read class names from a text file of one name per line; `coco` stands for COCO's names.

    Raises:
        ModelExportError: The file cannot be read or holds no name.
    """
    if source == "coco":
        return COCO_CLASS_NAMES
    try:
        return read_names(Path(source))
    except ModelExportError as error:
        raise ModelExportError(f"cannot read class names from {source}: {error}") from error


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a file that has one in each line, which is its number.

    Raises:
        ModelExportError: The file cannot be read, has no names or one twice, or a blank line before
            the last name, which would shift the numbers, or all names begin with their numbers.
    """
    names = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not names:
        raise ModelExportError(f"{path} has no names; write one into each line")
    if "" in names:
        raise ModelExportError(
            f"{path}, line {names.index('') + 1}: the line is blank, and lines number the classes; "
            "write the name of the class, or remove the line"
        )
    numbers = [NUMBER_BEFORE.match(name) for name in names]
    if len(names) > 1 and [number and number[1] for number in numbers] == _counted(names):
        raise ModelExportError(
            f"{path}, line 1: {names[0]!r} begins with the number of its line, as all do; write "
            "the names alone"
        )
    refuse_twins(path, names)
    return tuple(names)


def _counted(names: Sequence[str]) -> list[str]:
    return [str(number) for number in range(len(names))]


def refuse_twins(source: Path, names: Sequence[str]) -> None:
    """See that no two classes have one name.

    Raises:
        ModelExportError: Two have.
    """
    if twins := [name for name, count in Counter(names).items() if count > 1]:
        raise ModelExportError(
            f"{source}: two classes are called {twins[0]!r}; give each a name of its own"
        )
