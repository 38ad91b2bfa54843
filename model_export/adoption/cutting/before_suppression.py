"""Cut a graph that ends in suppression where it has the rows of all cells, whole or in parts."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from model_export.adoption.reading.pictures import first_pictures, grey_picture
from model_export.adoption.reading.tables import KNOWN_STRIDES, Floats, Shapes, parts_of
from model_export.adoption.reading.trial_network import TrialNetwork, open_trial
from model_export.data.class_names import COCO_CLASS_NAMES
from model_export.graphs.edit import with_outputs
from model_export.graphs.pixel_values import PixelValues
from model_export.graphs.prepare import JOINERS, inner_tables

BOX: Final = 4
# Operators whose outputs may be a part of the rows: all levels joined, or the maps of one level.
PARTS: Final = JOINERS | {"Conv", "Split", "Slice", "Gather", "Unsqueeze", "Flatten"}
OBJECTNESS: Final = "objectness_of_cells"


def before_suppression(
    model: onnx.ModelProto,
    network: TrialNetwork,
    num_classes: int | None,
    strides: tuple[int, ...] | None,
    ending: str,
) -> tuple[onnx.ModelProto, str] | None:
    """Cut a graph where it has the rows of all cells: in one tensor, in three, or in three a level.

    Args:
        model: The graph; plugins' operators are cut off already.
        network: The same graph, loaded.
        num_classes: C, if it is known.
        strides: The strides, if the user states them; else every usual set is tried.
        ending: The operators that suppress.

    Returns:
        The graph, cut, and a note; None if it has the rows nowhere.
    """
    size = (network.height, network.width)
    all_strides = (strides,) if strides else KNOWN_STRIDES
    columns = 5 + (num_classes or len(COCO_CLASS_NAMES))
    for each in all_strides:
        names = inner_tables(model, network.image, size, (sum(_cells(size, each)), columns))
        if names:
            return with_outputs(model, names), f"suppression at the end ({ending}) is cut off"
    inside = _Inside(model, network)
    for each in all_strides:
        parts = inside.joined(each, num_classes) or inside.by_level(each, num_classes)
        if parts:
            note = (
                f"suppression at the end ({ending}) is cut off, at {', '.join(parts)}: boxes, "
                "objectness and classes"
            )
            return inside.cut(parts), note
    return None


def without_rows(ending: str, num_classes: int | None) -> str:
    """What is wrong with a graph that has the rows nowhere."""
    return (
        f"the model gives finished boxes, after suppression ({ending}), and the graph has the "
        "rows of all cells nowhere before it: 4 box values, objectness and "
        f"{num_classes or len(COCO_CLASS_NAMES)} classes, in one tensor, in three, or in three for "
        "each level; export it without suppression, or name its classes with --names if they are "
        "others"
    )


def _cells(size: tuple[int, int], strides: Sequence[int]) -> list[int]:
    return [(size[0] // stride) * (size[1] // stride) for stride in strides]


class _Inside:
    """The inner tensors of a graph that could be parts of its rows.

    Args:
        model: The graph.
        network: The same graph, loaded.
    """

    def __init__(self, model: onnx.ModelProto, network: TrialNetwork) -> None:
        # Without what no output depends on.
        self._model = with_outputs(model, [value.name for value in model.graph.output])
        self._size = (network.height, network.width)
        self._kinds = {
            name: node.op_type
            for node in self._model.graph.node
            for name in node.output
            if name and node.op_type in PARTS
        }
        self._shapes = self._shapes_of_dependent()

    def joined(self, strides: Sequence[int], num_classes: int | None) -> list[str]:
        """The earliest tensors of boxes, objectness and classes of all levels; or none."""
        rows = sum(_cells(self._size, strides))
        tables = [name for name in self._shapes if self._kinds[name] != "Conv"]
        return self._parts(tables, rows, num_classes, latest=False)

    def by_level(self, strides: Sequence[int], num_classes: int | None) -> list[str]:
        """The three maps of each level, which its last convolutions give; or none."""
        found: list[str] = []
        maps = [name for name in self._shapes if self._kinds[name] == "Conv"]
        for rows in _cells(self._size, strides):
            level = self._parts(maps, rows, num_classes, latest=True)
            if not level:
                return []
            found += level
        return found

    def cut(self, names: Sequence[str]) -> onnx.ModelProto:
        """The graph with these tensors as outputs; those without a column axis get one."""
        cut = with_outputs(self._model, names)
        for value in cut.graph.output:
            if len(self._shapes[value.name]) == 2:
                shape = numpy_helper.from_array(np.array([0, -1, 1]), f"{OBJECTNESS}_shape")
                cut.graph.initializer.append(shape)
                inputs = [value.name, shape.name]
                cut.graph.node.append(helper.make_node("Reshape", inputs, [OBJECTNESS]))
                value.name = OBJECTNESS
        return cut

    def _parts(
        self, names: Sequence[str], rows: int, num_classes: int | None, *, latest: bool
    ) -> list[str]:
        """Names of box, objectness and classes among tensors of this many rows."""
        of_width: dict[int, list[str]] = {}
        for name in reversed(names) if latest else names:
            for width in self._widths(name, rows):
                of_width.setdefault(width, []).append(name)
        for count in _class_counts(of_width, num_classes):
            for parts in itertools.product(*(of_width.get(w, ())[:2] for w in (BOX, 1, count))):
                if len({*parts}) == len(parts):
                    return list(parts)
        return []

    def _widths(self, name: str, rows: int) -> Iterator[int]:
        shape = self._shapes[name]
        if shape == (1, rows):
            yield 1
            return
        for part in parts_of(name, shape, rows):
            if part.has_batch:
                yield part.channels

    def _shapes_of_dependent(self) -> Shapes:
        """Shapes for one image of the float tensors that depend on the image."""
        if not self._kinds:
            return {}
        cut = with_outputs(self._model, self._kinds)
        network = open_trial(cut.SerializeToString(), self._size)
        (first, *_) = first_pictures(self._size, COCO_CLASS_NAMES)
        pictures = (first.image, grey_picture(self._size))
        one, other = (network.run(picture, PixelValues()) for picture in pictures)
        return {name: one[name].shape for name in one if _differ(one[name], other[name])}


def _class_counts(widths: Iterable[int], num_classes: int | None) -> list[int]:
    """The numbers of classes to look for, the likeliest first."""
    if num_classes is not None:
        return [num_classes]
    coco = len(COCO_CLASS_NAMES)
    others = {each for each in widths if each not in (1, BOX, coco)}
    return [coco, *sorted(others, reverse=True), BOX, 1]


def _differ(one: Floats, other: Floats) -> bool:
    return one.shape == other.shape and not np.array_equal(one, other)
