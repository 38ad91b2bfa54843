"""The names of a third-party graph's classes: stated, in the file, or COCO's by their number."""

import ast
import json

import onnx

from model_export.adoption.reading.other_detectors import other_detector, shapes_in_words
from model_export.adoption.reading.tables import FIXED_COLUMNS, arrangements
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.errors import ModelExportError

Shapes = dict[str, tuple[int, ...]]
KEYS = ("names", "class_names", "classes", "labels")


def known_names(
    model: onnx.ModelProto, stated: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The names that the user states or the file carries, or None; and a note on their origin."""
    if stated is not None:
        return stated, ()
    named = names_in_file(model)
    return named, (f"{counted(len(named))} are named in the file",) if named else ()


def names_by_number(
    shapes: Shapes, size: tuple[int, int], strides: tuple[int, ...] | None
) -> tuple[tuple[str, ...], str]:
    """COCO's names if the outputs have 80 classes, and a note that says so.

    Args:
        shapes: The shape of each output for one image.
        size: (height, width) of that image in pixels.
        strides: Pixels per cell of each level, if the user states them.

    Raises:
        ModelExportError: They have another number, or are no YOLOX's; the message says which.
    """
    coco = len(COCO_CLASS_NAMES)
    counts = class_counts(shapes, size, strides)
    if arrangements(shapes, size, coco, strides):
        return COCO_CLASS_NAMES, f"the class names are taken to be COCO's {coco}"
    other = other_detector(shapes, size, coco)
    seen = f"its outputs are {shapes_in_words(shapes)}"
    if not counts:
        # Nothing can be read without another number of strides; what is wrong is told later.
        return COCO_CLASS_NAMES, ""
    if other:
        raise ModelExportError(
            f"the model is no YOLOX: {other}; {seen}. If it is a YOLOX of {counted(counts[0])}, "
            "name them with --names"
        )
    raise ModelExportError(
        f"the model has {counted(counts[0])}, and not COCO's {coco}; add --names with a file of "
        f"one name per line. If there are {counts[0] + 1} classes, it has no objectness, as YOLOv8 "
        f"has none, and is no YOLOX; {seen}"
    )


def counted(count: int) -> str:
    """`1 class`, `2 classes`."""
    return f"{count} class" if count == 1 else f"{count} classes"


def class_counts(
    shapes: Shapes, size: tuple[int, int], strides: tuple[int, ...] | None
) -> list[int]:
    """The numbers of classes that the outputs of a YOLOX of these shapes could have."""
    found = arrangements(shapes, size, None, strides)
    return list(dict.fromkeys(each.channels - FIXED_COLUMNS for each in found))


def names_in_file(model: onnx.ModelProto) -> tuple[str, ...] | None:
    """Class names in a file's metadata: JSON, a Python literal, lines, or a list with commas."""
    for entry in model.metadata_props:
        if entry.key.lower() in KEYS:
            names = _names(_parsed(entry.value))
            if names:
                return names
    return None


def _parsed(text: str) -> object:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text.split("\n" if "\n" in text.strip() else ",")


def _names(content: object) -> tuple[str, ...]:
    if isinstance(content, dict):
        numbered = all(str(key).isdigit() for key in content)
        keys = sorted(content, key=lambda key: int(str(key))) if numbered else list(content)
        content = [content[key] for key in keys]
    if not isinstance(content, list | tuple):
        return ()
    return tuple(name for each in content if (name := str(each).strip()))
