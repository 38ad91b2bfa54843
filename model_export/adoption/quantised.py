"""Say what it costs that a model computes with 8-bit integers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import onnx

from model_export.adoption.read_graph import Facts, ReadGraph, read_graph
from model_export.adoption.reading.choice.candidate import Progress
from model_export.adoption.reading.evidence import SAME, overlaps
from model_export.adoption.source_file import read_onnx
from model_export.errors import ModelExportError
from model_export.graphs.prepare import is_quantised
from service.core.decode import Detections

MEASURED: Final = (
    "plain static quantisation took YOLOX-nano from an AP of 0.299 to 0.184 on COCO photos"
)
RUINED: Final = (
    f"The model computes with 8-bit integers, which may have ruined it ({MEASURED}); adopt the "
    "float file that it was made from"
)
UNKNOWN: Final = (
    "warning: the model computes with 8-bit integers, and nothing says what that costs "
    f"({MEASURED})"
    "; add --float-model with the file that it was made from to compare their boxes, and measure "
    "both with `yolox-serve evaluate`"
)


def read_as_float(model: onnx.ModelProto, facts: Facts, progress: Progress) -> ReadGraph:
    """Find out how a graph is used; if it is an 8-bit one that makes no sense, say why that may be.

    Raises:
        ModelExportError: It is no YOLOX, or cannot be told how it is used.
    """
    try:
        return read_graph(model, facts, progress)
    except ModelExportError as error:
        if is_quantised(model):
            raise ModelExportError(f"{error}. {RUINED}") from error
        raise


def quantisation_note(
    model: onnx.ModelProto,
    float_path: Path | None,
    facts: Facts,
    read: ReadGraph,
    progress: Progress,
) -> tuple[str, ...]:
    """Compare an 8-bit model's boxes with those of the file it was made from, or warn.

    Args:
        model: The file's graph.
        float_path: The file that it was made from, if given.
        facts: The user's statements about both.
        read: How the 8-bit graph is read.
        progress: Told what is done.

    Returns:
        No note if the graph computes with floats.

    Raises:
        ModelExportError: The other file cannot be read in the same way.
    """
    if not is_quantised(model):
        return ()
    if float_path is None:
        return (UNKNOWN,)
    told = replace(facts, class_names=read.class_names, values=read.reading.values)
    exact = read_graph(read_onnx(float_path), told, progress)
    pairs = list(zip(exact.reading.found, read.reading.found, strict=False))
    total = sum(len(expected) for expected, _ in pairs)
    kept = sum(_matched(expected, found) for expected, found in pairs)
    others = sum(len(found) for _, found in pairs) - kept
    pictures = f"{len(pairs)} picture{'s' if len(pairs) > 1 else ''}"
    sign = "" if kept == total else "warning: "
    note = (
        f"{sign}the model computes with 8-bit integers: on {pictures}, it finds {kept} of the "
        f"{total} boxes of {float_path.name}, and {others} others; {MEASURED}, so "
        "measure both with `yolox-serve evaluate`"
    )
    return (note,)


def _matched(expected: Detections, found: Detections) -> int:
    """How many boxes are found again: at the same place, of the same class, each by another."""
    if not len(expected) or not len(found):
        return 0
    alike = overlaps(expected.boxes_xyxy, found.boxes_xyxy)
    alike[expected.class_ids[:, None] != found.class_ids[None]] = 0
    free: set[int] = set(range(len(found)))
    return sum(_take(row, free) for row in alike.tolist())


def _take(row: Sequence[float], free: set[int]) -> bool:
    best = max(free, key=row.__getitem__, default=None)
    if best is None or row[best] < SAME:
        return False
    free.remove(best)
    return True
