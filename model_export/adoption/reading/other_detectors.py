"""Name the detector that a graph's outputs belong to, if they are no YOLOX's."""

from collections.abc import Mapping, Sequence
from typing import Final

import onnx

from model_export.adoption.reading.tables import KNOWN_STRIDES, Shapes, parts_of

# Anchors of each cell in YOLOv3 to v5 and v7.
ANCHORS: Final = 3
SUPPRESSION_WORDS: Final = ("nms", "nonmaxsuppression")
# Names of outputs that hold boxes after suppression, in the exports that are common.
AFTER_SUPPRESSION: Final = frozenset(
    "num_dets det_boxes det_scores det_classes num_detections nmsed_boxes nmsed_scores "
    "nmsed_classes dets labels detection_boxes detection_scores detection_classes "
    "num_detections selected_indices".split()
)
# Columns of distances' distributions: four sides of 8 bins (NanoDet), or 16 (YOLOv8, GFL).
DISTRIBUTIONS: Final = (32, 64, 68)


def suppression(model: onnx.ModelProto) -> str | None:
    """The operator or the outputs by which a graph ends in suppression, or None."""
    for node in model.graph.node:
        if any(word in node.op_type.lower() for word in SUPPRESSION_WORDS):
            return str(node.op_type)
    names = [value.name for value in model.graph.output]
    found = [name for name in names if name.lower() in AFTER_SUPPRESSION]
    return f"outputs {', '.join(names)}" if found else None


def other_detector(shapes: Shapes, size: tuple[int, int], num_classes: int | None) -> str | None:
    """Name a detector that is no YOLOX by the shapes of its outputs.

    Args:
        shapes: The shape of each output for one image.
        size: (height, width) of that image in pixels.
        num_classes: C, if known.
    """
    for strides in KNOWN_STRIDES:
        cells = [(size[0] // stride) * (size[1] // stride) for stride in strides]
        told = _by_cells(shapes, cells, num_classes)
        if told:
            return told
    return _by_queries(shapes)


def _by_cells(shapes: Shapes, cells: Sequence[int], num_classes: int | None) -> str | None:
    for rows in (sum(cells), *cells):
        if _channels(shapes, rows * ANCHORS) - {1, 2, 3, 4}:
            return (
                f"it gives {ANCHORS} rows for each cell: this looks like YOLOv5 (or v3, v4, v7), "
                "which has anchors"
            )
    rows = sum(cells)
    channels = _channels(shapes, rows) | _channels(shapes, cells[0])
    if num_classes is None:
        return None
    if ANCHORS * (5 + num_classes) in channels:
        return "it gives three boxes for each cell: this looks like YOLOv5 (or v3, v4, v7)"
    if 4 + num_classes in channels:
        return (
            f"no objectness column: {4 + num_classes} values for each cell are 4 for the box and "
            f"{num_classes} classes; this looks like YOLOv8 (or v9, v11)"
        )
    if any(num_classes + bins in channels for bins in DISTRIBUTIONS):
        return (
            "no objectness column: distances come as distributions; this looks like NanoDet or "
            "YOLOv8 without its last step"
        )
    return _apart(channels, num_classes)


def _apart(channels: set[int], num_classes: int) -> str | None:
    """Boxes and classes in outputs of their own, without objectness."""
    if {4, num_classes} <= channels and 1 not in channels:
        return "no objectness column: boxes and classes apart, as in YOLOv6, PP-YOLOE or NanoDet"
    if any(bins in channels and num_classes in channels for bins in DISTRIBUTIONS):
        return "no objectness column: this looks like NanoDet, RTMDet or YOLOv8"
    return None


def _by_queries(shapes: Shapes) -> str | None:
    """Detectors with a fixed number of boxes, whatever the size of the image."""
    for shape in shapes.values():
        if len(shape) in (2, 3) and shape[-1] in (6, 7) and shape[-2] <= 1000:
            return (
                f"it gives {shape[-2]} finished boxes of {shape[-1]} values: this looks like "
                "YOLOv10, or any detector with its suppression inside"
            )
    ends = {(shape[-2], shape[-1]) for shape in shapes.values() if len(shape) == 3}
    boxes = {count for count, last in ends if last == 4}
    if any(count in boxes and last != 4 for count, last in ends):
        return "it gives boxes and classes of a fixed number of queries: this looks like DETR"
    return None


def _channels(shapes: Shapes, rows: int) -> set[int]:
    """The numbers of columns of the outputs that have this many rows."""
    return {part.channels for name, shape in shapes.items() for part in parts_of(name, shape, rows)}


def shapes_in_words(shapes: Mapping[str, Sequence[int]]) -> str:
    """`output 1x3549x85`, for each output."""
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
