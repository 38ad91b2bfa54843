"""Name the detector that a graph's outputs belong to, if they are no YOLOX's."""

from collections.abc import Mapping, Sequence
from typing import Final

import onnx

from model_export.adoption.reading.tables import Shapes, parts_of

SUPPRESSION_WORDS: Final = ("nms", "nonmaxsuppression")
# Names of outputs that hold boxes after suppression, in the exports that are common.
AFTER_SUPPRESSION: Final = frozenset(
    "num_dets det_boxes det_scores det_classes num_detections nmsed_boxes nmsed_scores "
    "nmsed_classes dets labels detection_boxes detection_scores detection_classes "
    "num_detections selected_indices".split()
)
# Strides of the levels of other detectors; a level that does not divide the image is rounded up.
STRIDES: Final = (
    (8, 16, 32),
    (8, 16, 32, 64),
    (8, 16, 32, 64, 128),
    (4, 8, 16, 32),
    (16, 32),
)
# Anchors of each cell: YOLOv3 to v5 and v7; YOLOv2; RetinaNet and EfficientDet.
YOLO_ANCHORS: Final = 3
YOLO2_ANCHORS: Final = 5
RETINA_ANCHORS: Final = 9
# Rows of SSD: with VGG at 300 and 512 pixels, with MobileNet at 300 and 320, with ResNet at 300.
SSD_ROWS: Final = frozenset({8732, 24564, 24528, 1917, 2034, 3000, 3234, 15130})
# Columns of distances' distributions: four sides of 8 bins (NanoDet), or 16 and 17 (YOLOv8, GFL).
DISTRIBUTIONS: Final = (32, 64, 68)
# Boxes of detectors that give a fixed number, whatever the size of the image.
QUERIES: Final = frozenset({100, 200, 300, 500, 900, 1000})

YOLO5: Final = "this looks like YOLOv5 (or v3, v4, v7), which has anchors"
RETINANET: Final = "this looks like RetinaNet (or EfficientDet), which has anchors"


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
    levels = [
        [-(-size[0] // stride) * -(-size[1] // stride) for stride in strides] for strides in STRIDES
    ]
    tables = _tables(shapes)
    told = _by_queries(tables) or _by_priors(tables) or _by_finished_boxes(shapes)
    for cells in levels:
        told = told or _by_anchors(shapes, cells)
    for cells in levels if num_classes else ():
        told = told or _by_columns(shapes, cells, num_classes or 0)
    return told or _by_maps(shapes, size)


def _tables(shapes: Shapes) -> set[tuple[int, int]]:
    """(rows, columns) of the outputs for one image that are plain tables."""
    return {
        (shape[-2], shape[-1])
        for shape in shapes.values()
        if len(shape) == 3 or (len(shape) == 2 and shape[0] > 1)
    }


def _by_queries(tables: set[tuple[int, int]]) -> str | None:
    if len({rows for rows, _ in tables}) > 1:
        return None
    for rows, columns in tables:
        if rows in QUERIES and columns in (6, 7):
            return (
                f"it gives {rows} finished boxes of {columns} values: this looks like YOLOv10, or "
                "any detector with its suppression inside"
            )
        if rows in QUERIES and columns > 4:
            return (
                f"it gives boxes and classes of {rows} queries: this looks like DETR (or RT-DETR)"
            )
    return None


def _by_priors(tables: set[tuple[int, int]]) -> str | None:
    for rows in {rows for rows, columns in tables if columns == 4}:
        if rows in SSD_ROWS and any(count == rows and other > 4 for count, other in tables):
            return f"it gives {rows} boxes with prior boxes, and no objectness: this looks like SSD"
    return None


def _by_finished_boxes(shapes: Shapes) -> str | None:
    """Boxes of one image, with a list of scores or classes as long."""
    counts = {shape[0] for shape in shapes.values() if len(shape) == 2 and shape[1] == 4}
    if any(len(shape) == 1 and shape[0] in counts for shape in shapes.values()):
        return "it gives finished boxes: this looks like Faster R-CNN (or Mask R-CNN, or FCOS)"
    return None


def _by_anchors(shapes: Shapes, cells: Sequence[int]) -> str | None:
    """Several boxes for each cell, as rows or as columns."""
    for rows in (sum(cells), *cells):
        if _channels(shapes, rows * RETINA_ANCHORS) - {1, 2, 3}:
            return f"it gives {RETINA_ANCHORS} rows for each cell: {RETINANET}"
        if _channels(shapes, rows * YOLO_ANCHORS) - {1, 2, 3, 4}:
            return f"it gives {YOLO_ANCHORS} rows for each cell: {YOLO5}"
    maps = _channels(shapes, cells[0])
    if 4 * RETINA_ANCHORS in maps and len(maps) > 1:
        return f"it gives {RETINA_ANCHORS} boxes for each cell: {RETINANET}"
    return None


def _by_columns(shapes: Shapes, cells: Sequence[int], num_classes: int) -> str | None:
    """The numbers of columns for each cell that rows of this many classes have elsewhere."""
    columns = _channels(shapes, sum(cells)) | set().union(*(_channels(shapes, n) for n in cells))
    if YOLO_ANCHORS * (5 + num_classes) in columns:
        return f"it gives {YOLO_ANCHORS} boxes for each cell: {YOLO5}"
    if YOLO2_ANCHORS * (5 + num_classes) in columns:
        return f"it gives {YOLO2_ANCHORS} boxes for each cell: this looks like YOLOv2, with anchors"
    if 5 in columns:
        return (
            "no objectness column: 5 values for each cell are 4 for the box and 1 class; this "
            "looks like YOLOv8 (or v9, v11)"
        )
    if 4 + num_classes in columns:
        return (
            f"no objectness column: {4 + num_classes} values for each cell are 4 for the box and "
            f"{num_classes} classes; this looks like YOLOv8 (or v9, v11)"
        )
    if any(num_classes + bins in columns for bins in DISTRIBUTIONS):
        return (
            "no objectness column: distances come as distributions; this looks like NanoDet or "
            "YOLOv8 without its last step"
        )
    return _apart(columns, num_classes)


def _apart(columns: set[int], num_classes: int) -> str | None:
    """Boxes and classes in outputs of their own, without objectness."""
    if {4, num_classes} <= columns and 1 not in columns:
        return (
            "no objectness column: boxes and classes apart, as in YOLOv6, PP-YOLOE, RTMDet or "
            "YOLO-NAS"
        )
    if any(bins in columns and num_classes in columns for bins in DISTRIBUTIONS):
        return "no objectness column: this looks like NanoDet, RTMDet or YOLOv8"
    return None


def _by_maps(shapes: Shapes, size: tuple[int, int]) -> str | None:
    """Outputs that hold no boxes at all, or one point for each object."""
    ends = {(shape[1], shape[-2:]) for shape in shapes.values() if len(shape) == 4}
    quarter = (size[0] // 4, size[1] // 4)
    if sum(channels == 2 for channels, end in ends if end == quarter) and len(shapes) > 1:
        return "it gives heat maps of points at a quarter of the size: this looks like CenterNet"
    if len(shapes) == 1 and any(end == size for _, end in ends):
        return "it gives a map as large as the image: this looks like a segmentation model"
    if len(shapes) == 1 and all(len(shape) == 2 and shape[0] == 1 for shape in shapes.values()):
        return "it gives one row of numbers for the image: this looks like a classifier"
    return None


def _channels(shapes: Shapes, rows: int) -> set[int]:
    """The numbers of columns of the outputs that have this many rows."""
    return {part.channels for name, shape in shapes.items() for part in parts_of(name, shape, rows)}


def shapes_in_words(shapes: Mapping[str, Sequence[int]]) -> str:
    """`output 1x3549x85`, for each output."""
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
