"""The comparison with other servers holds their boxes to one another."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers.outcome.boxes import (
    EXACT,
    REDUCED,
    Box,
    average_precision,
    compare,
    read_answer,
    tolerance_of,
)
from benchmarks.peers.session import check_boxes
from model_export.errors import ModelExportError
from model_export.measure.coco import make_coco_set

NAMES = ("red", "green", "blue")
BOX = Box(1, 0.9, (10.0, 10.0, 50.0, 50.0))


def test_both_forms_of_answers_say_the_same() -> None:
    corners = dict(zip(("x1", "y1", "x2", "y2"), BOX.box_xyxy, strict=True))
    mine = {"results": [{"detections": [{"class_id": 1, "score": 0.9, "box": corners}]}]}
    theirs = {"detections": [{"class_id": 1, "score": 0.9, "box": list(BOX.box_xyxy)}]}
    assert read_answer(json.dumps(mine).encode()) == [BOX]
    assert read_answer(json.dumps(theirs).encode()) == [BOX]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"results": []}', b'{"detections": [{"class_id": 1}]}']
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ModelExportError, match="no answer of a detector"):
        read_answer(body)


def test_equal_boxes_agree() -> None:
    near = replace(BOX, score=0.899, box_xyxy=(10.0, 10.0, 50.0, 50.4))
    agreement = compare({"p": [BOX]}, {"p": [near]})
    assert (agreement.compared, agreement.differences) == (2, ())
    assert agreement.least_iou == pytest.approx(40 / 40.4, abs=1e-4)
    assert agreement.most_score_gap == pytest.approx(0.001)


@pytest.mark.parametrize(
    "other",
    [
        [],
        [replace(BOX, class_id=2)],
        [replace(BOX, box_xyxy=(10.0, 10.0, 50.0, 54.0))],
        [replace(BOX, score=0.8)],
        [BOX, replace(BOX, box_xyxy=(100.0, 10.0, 150.0, 50.0))],
    ],
    ids=["missing", "class", "place", "score", "more"],
)
def test_any_difference_is_seen(other: list[Box]) -> None:
    assert compare({"p": [BOX]}, {"p": other}).differences


def test_boxes_close_to_the_confidence_may_be_missing() -> None:
    assert not compare({"p": [replace(BOX, score=0.31)]}, {"p": []}).differences


def test_a_contender_that_finds_something_else_is_named() -> None:
    with pytest.raises(ModelExportError, match="litserve finds other boxes"):
        check_boxes({"p": [BOX]}, {"mosec": {"p": [BOX]}, "litserve": {"p": []}})


def test_precision_of_perfect_boxes_is_one() -> None:
    truth = {"image_id": 7, "category_id": 3, "bbox": [10.0, 10.0, 40.0, 40.0]}
    coco = make_coco_set({7: Path("p.jpg")}, {3: "green"}, [truth])
    assert average_precision(coco, NAMES, {7: [BOX]}) == pytest.approx(1.0)
    assert average_precision(coco, NAMES, {7: [replace(BOX, class_id=0)]}) == 0
    with pytest.raises(ModelExportError, match="none of the model's classes"):
        average_precision(coco, ("cat", "dog", "cow"), {7: [BOX]})


@pytest.mark.parametrize("precision", [None, "f32", "float32"])
def test_float32_engines_are_held_to_the_peers_boxes_exactly(precision: str | None) -> None:
    assert tolerance_of(precision) is EXACT


def test_engines_of_fewer_bits_may_move_boxes_and_scores_a_little() -> None:
    assert tolerance_of("bf16") is REDUCED
    moved = replace(BOX, score=0.83, box_xyxy=(10.0, 10.0, 50.0, 54.0))
    assert compare({"p": [BOX]}, {"p": [moved]}, REDUCED).differences == ()
    for other in (replace(BOX, score=0.7), replace(BOX, box_xyxy=(10.0, 10.0, 50.0, 70.0))):
        assert compare({"p": [BOX]}, {"p": [other]}, REDUCED).differences


def test_one_box_of_many_may_lack_a_partner_where_bits_are_fewer() -> None:
    many = {str(number): [BOX] for number in range(100)}
    one_less = many | {"0": []}
    assert check_boxes(many, {"mosec": one_less}, REDUCED)["mosec"].holds
    with pytest.raises(ModelExportError, match="mosec finds other boxes"):
        check_boxes(many, {"mosec": one_less}, EXACT)
    with pytest.raises(ModelExportError, match="mosec finds other boxes"):
        check_boxes(many, {"mosec": {photo: [] for photo in many}}, REDUCED)


def test_only_the_photos_of_the_reference_are_compared() -> None:
    agreement = compare({"p": [BOX]}, {"p": [BOX], "larger": [BOX]})
    assert (agreement.compared, agreement.differences) == (2, ())
