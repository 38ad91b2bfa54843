"""The options that a model detects best with are found, and what they find is counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_export.data.annotations import AnnotatedImage
from model_export.measure.matching import confusion, match
from model_export.measure.thresholds import OPTIONS, WORTH_IT, best_thresholds
from service.core.contract import InputSpec, ModelContract, Recommended
from service.core.decode import Detections, anchor_grid
from support.pictures import plain

NAMES = ("cat", "dog")
CONTRACT = ModelContract("m", "1", InputSpec("images", 64, 64), NAMES)


def truth(path: Path, boxes: list[tuple[float, ...]], class_ids: list[int]) -> AnnotatedImage:
    path.write_bytes(plain())
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(path, 1, (64, 64), array, np.array(class_ids, np.int64))


def detections(rows: list[tuple[float, int, tuple[float, ...]]]) -> Detections:
    scores = np.array([row[0] for row in rows], np.float32)
    boxes = np.array([row[2] for row in rows], np.float32).reshape(-1, 4)
    class_ids = np.array([row[1] for row in rows], np.int64)
    return Detections(boxes, scores, scores, class_ids, np.ones_like(scores))


class Canned(nn.Module):
    """Gives the same rows for any image: objectness, class id, class probability, box."""

    def __init__(self, rows: list[tuple[float, int, float, tuple[float, ...]]]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        grid = anchor_grid(64, 64, CONTRACT.strides)
        self.raw = torch.full((1, len(grid.strides), 7), -20.0)
        for cell, (objectness, class_id, probability, box) in enumerate(rows):
            x1, y1, x2, y2 = box
            stride, (column, row) = grid.strides[cell], grid.cells_ij[cell]
            centre = ((x1 + x2) / 2 / stride - column, (y1 + y2) / 2 / stride - row)
            sides = np.log([(x2 - x1) / stride, (y2 - y1) / stride])
            self.raw[0, cell, :4] = torch.tensor([*centre, *sides])
            self.raw[0, cell, 4] = float(np.log(objectness / (1 - objectness)))
            self.raw[0, cell, 5 + class_id] = float(np.log(probability / (1 - probability)))

    def forward(self, _images: Tensor) -> Tensor:
        return self.raw


def test_each_object_is_matched_with_one_detection_of_its_class(tmp_path: Path) -> None:
    image = truth(tmp_path / "a.png", [(0, 0, 20, 20), (30, 30, 60, 60)], [0, 1])
    found = detections(
        [
            (0.9, 0, (0, 0, 20, 19)),
            (0.8, 0, (0, 0, 20, 20)),  # the cat again
            (0.7, 0, (30, 30, 60, 60)),  # the dog as a cat
            (0.6, 1, (0, 40, 10, 50)),  # nothing
        ]
    )

    matches = match([found], [image])

    assert matches.right.tolist() == [True, False, False, False]
    assert matches.objects == 2
    assert matches.of_class(1).objects == 1
    assert confusion([found], [image], 2).tolist() == [[1, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_missed_object_and_image_without_objects_are_counted(tmp_path: Path) -> None:
    image = truth(tmp_path / "a.png", [(0, 0, 20, 20)], [1])
    empty = truth(tmp_path / "b.png", [], [])
    ghost = detections([(0.9, 0, (0, 0, 9, 9))])

    counts = confusion([detections([]), ghost], [image, empty], 2)

    assert counts.tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_confidence_lies_between_what_is_right_and_what_is_not(tmp_path: Path) -> None:
    image = truth(tmp_path / "a.png", [(0, 0, 20, 20), (30, 30, 60, 60)], [0, 1])
    model = Canned(
        [
            (0.8, 0, 0.999, (0, 0, 20, 20)),
            (0.6, 1, 0.999, (30, 30, 60, 60)),
            (0.4, 0, 0.999, (40, 2, 60, 12)),
        ]
    )

    best = best_thresholds(model.eval(), CONTRACT, [image])

    assert best.overall.f1 == best.overall.precision == best.overall.recall == 1
    assert best.overall.confidence == best.options.confidence == pytest.approx(0.5, abs=0.011)
    # Both scores do as well here, and the article's is preferred.
    assert best.recommended() == Recommended(
        confidence=best.options.confidence,
        score_by="objectness",
        nms="soft-mean",
        iou=0.45,
        class_agnostic=False,
    )
    assert best.by_class["dog"].confidence == pytest.approx(0.3, abs=0.011)
    assert best.by_class["cat"].confidence == pytest.approx(0.6, abs=0.011)
    assert [len(each) for each in best.found] == [2]
    # The best of them is tried across classes, too.
    assert len(best.tried) == len(OPTIONS) + 1


def test_joint_score_is_recommended_where_objectness_alone_does_not_tell(tmp_path: Path) -> None:
    image = truth(tmp_path / "a.png", [(0, 0, 20, 20)], [0])
    model = Canned([(0.7, 0, 0.9, (0, 0, 20, 20)), (0.8, 1, 0.2, (30, 30, 60, 60))])

    best = best_thresholds(model.eval(), CONTRACT, [image])

    assert best.recommended().score_by == "joint"
    assert best.overall.f1 == 1
    assert max(f1 for name, f1 in best.tried.items() if name.startswith("obj")) < 1 - WORTH_IT


def test_overlap_is_wider_where_objects_are_crowded(tmp_path: Path) -> None:
    boxes = [(0.0, 0.0, 30.0, 30.0), (8.0, 0.0, 38.0, 30.0)]  # IoU 0.58
    image = truth(tmp_path / "a.png", boxes, [0, 0])
    model = Canned(
        [(0.9, 0, 0.99, boxes[0]), (0.85, 0, 0.99, boxes[1]), (0.82, 1, 0.99, (40, 40, 60, 60))]
    )

    best = best_thresholds(model.eval(), CONTRACT, [image])

    assert best.overall.recall == 1
    assert best.tried["objectness, hard, IoU 0.65"] > best.tried["objectness, hard, IoU 0.45"]


def test_model_that_finds_nothing_recommends_nothing(tmp_path: Path) -> None:
    image = truth(tmp_path / "a.png", [(0, 0, 20, 20)], [0])

    best = best_thresholds(Canned([]).eval(), CONTRACT, [image])

    assert best.recommended() == Recommended()
    assert best.by_class == {}
