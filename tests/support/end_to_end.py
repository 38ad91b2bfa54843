"""Graphs as MMDeploy makes them: boxes, objectness and classes apart, and suppression inside."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.onnx_models import STRIDES

# Names of the maps (N, C, H, W) of a level: box, objectness and classes, the last two as logits.
Maps = tuple[str, str, str]


class EndToEnd:
    """Appends decoding and suppression to a graph that has maps for each level.

    Args:
        model: The graph; its outputs are replaced.
        levels: The maps of each level.
        side: Height and width of its images in pixels.
    """

    def __init__(self, model: onnx.ModelProto, levels: Sequence[Maps], side: int) -> None:
        self.model = model
        self.graph = model.graph
        self.levels = levels
        self.cells = [side // stride for stride in STRIDES]
        del self.graph.output[:]

    def joined(self) -> onnx.ModelProto:
        """All levels are joined before boxes are decoded."""
        box, objectness, classes = (
            self._add("Concat", [self._rows(each, kind) for each in self.levels], axis=1)
            for kind in range(3)
        )
        objectness = self._add("Reshape", [objectness, self._constant(np.array([1, -1]))])
        score = self._add("Unsqueeze", [self._add("Sigmoid", [objectness])], axes=[2])
        scores = self._add("Mul", [self._add("Sigmoid", [classes]), score])
        return self._suppressed(self._corners(box, [0, 1, 2]), scores)

    def by_level(self) -> onnx.ModelProto:
        """Each level is decoded for itself, and only boxes and scores are joined."""
        boxes, scores = [], []
        for level, each in enumerate(self.levels):
            box, objectness, classes = (self._rows(each, kind) for kind in range(3))
            boxes.append(self._corners(box, [level]))
            both = [self._add("Sigmoid", [classes]), self._add("Sigmoid", [objectness])]
            scores.append(self._add("Mul", both))
        return self._suppressed(
            self._add("Concat", boxes, axis=1), self._add("Concat", scores, axis=1)
        )

    def _rows(self, level: Maps, kind: int) -> str:
        """(1, cells, channels) of a map."""
        turned = self._add("Transpose", [level[kind]], perm=[0, 2, 3, 1])
        if kind < 2:
            shape = self._constant(np.array([1, -1, (4, 1)[kind]]))
            return self._add("Reshape", [turned, shape])
        flat = self._add("Flatten", [turned], axis=3)
        return self._add("Unsqueeze", [flat], axes=[0])

    def _corners(self, box: str, levels: Sequence[int]) -> str:
        priors, strides = [], []
        for level in levels:
            rows, columns = np.mgrid[: self.cells[level], : self.cells[level]]
            priors.append(np.stack([columns.ravel(), rows.ravel()], 1) * STRIDES[level])
            strides.append(np.full((rows.size, 1), STRIDES[level]))
        steps = self._constant(np.concatenate(strides)[None].astype(np.float32))
        places = self._constant(np.concatenate(priors)[None].astype(np.float32))
        offset, size = (
            self._add("Gather", [box, self._constant(np.array(pair))], axis=2)
            for pair in ((0, 1), (2, 3))
        )
        center = self._add("Add", [self._add("Mul", [offset, steps]), places])
        sides = self._add("Mul", [self._add("Exp", [size]), steps])
        half = self._add("Mul", [sides, self._constant(np.array(0.5, np.float32))])
        ends = [self._add("Sub", [center, half]), self._add("Add", [center, half])]
        return self._add("Concat", ends, axis=2)

    def _suppressed(self, boxes: str, scores: str) -> onnx.ModelProto:
        """Outputs `dets` (1, K, 5) and `labels` (1, K) of the boxes that are kept."""
        turned = self._add("Transpose", [scores], perm=[0, 2, 1])
        limits = [
            self._constant(np.array([value], kind))
            for value, kind in ((100, np.int64), (0.5, np.float32), (0.05, np.float32))
        ]
        kept = self._add("NonMaxSuppression", [boxes, turned, *limits])
        column = self._add("Gather", [kept, self._constant(np.array(2))], axis=1)
        found = self._add("Gather", [boxes, column], axis=1)
        best = self._add("ReduceMax", [scores], axes=[2], keepdims=1)
        joined = [found, self._add("Gather", [best, column], axis=1)]
        self._add("Concat", joined, "dets", axis=2)
        labels = self._add("Gather", [kept, self._constant(np.array(1))], axis=1)
        self._add("Unsqueeze", [labels], "labels", axes=[0])
        kinds = {"dets": TensorProto.FLOAT, "labels": TensorProto.INT64}
        self.graph.output.extend(
            helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()
        )
        return self.model

    def _constant(self, value: Any) -> str:
        name = f"end_constant{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"end{len(self.graph.node)}"
        self.graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
