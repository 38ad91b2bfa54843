"""Class names: the eighty of COCO, or those in a text file."""

from pathlib import Path
from typing import Final

from model_export.data.texts import read_lines
from model_export.errors import ModelExportError
from yolox_client.coco import NAMES

COCO_CLASS_NAMES: Final = NAMES


def read_class_names(source: str) -> tuple[str, ...]:
    """Read class names from a text file of one name per line; `coco` stands for COCO's names.

    Raises:
        ModelExportError: The file cannot be read or holds no name.
    """
    if source == "coco":
        return COCO_CLASS_NAMES
    try:
        names = tuple(read_lines(Path(source)))
    except ModelExportError as error:
        raise ModelExportError(f"cannot read class names from {source}: {error}") from error
    if not names:
        raise ModelExportError(f"{source} holds no class names; write one per line")
    return names
