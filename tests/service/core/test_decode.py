from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.core.contract import InputSpec, ModelContract, ScoreBy
from service.core.decode import anchor_grid, decode_boxes, decode_candidates

CONTRACT = ModelContract("m", "1", InputSpec("images", 64, 64), ("a", "b", "c"))
GRID = anchor_grid(64, 64, CONTRACT.strides)


def one_row(*values: float) -> NDArray[np.float32]:
    return np.array([values], dtype=np.float32)


def test_grid_runs_row_by_row_and_level_by_level() -> None:
    grid = anchor_grid(32, 64, (8, 16, 32))
    assert len(grid.strides) == 32 + 8 + 2
    np.testing.assert_array_equal(grid.cells_ij[:9], [*([i, 0] for i in range(8)), [0, 1]])
    np.testing.assert_array_equal(grid.strides[[0, 31, 32, 39, 40, 41]], [8, 8, 16, 16, 32, 32])
    np.testing.assert_array_equal(grid.cells_ij[32:37], [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1]])


def test_grid_is_shared_and_cannot_be_changed() -> None:
    grid = anchor_grid(32, 64, (8, 16, 32))
    assert grid is anchor_grid(32, 64, (8, 16, 32))
    with pytest.raises(ValueError, match="read-only"):
        grid.cells_ij[0, 0] = 1


def test_anchor_point_coding_gives_the_article_s_box() -> None:
    box = decode_boxes(one_row(20, 15, 0.2, 0.3), one_row(2, 1), np.float32([32]), "anchor_point")
    left, top, right, bottom = box[0]
    np.testing.assert_allclose(
        [left, top, right - left, bottom - top], [100, 63, 39.085, 43.195], atol=2e-3
    )


def test_yolox_coding_centres_the_box_on_its_cell() -> None:
    box = decode_boxes(one_row(0.5, 0.25, 0, np.log(2)), one_row(2, 1), np.float32([32]), "yolox")
    np.testing.assert_allclose(box, [[80 - 16, 40 - 32, 80 + 16, 40 + 32]], rtol=1e-6)


@pytest.mark.parametrize("name", ["dog", "000000397133", "000000184324"])
def test_every_golden_row_decodes_to_the_official_box(shared_data: Path, name: str) -> None:
    golden = np.load(shared_data / "golden" / f"official_nano_{name}.npz")
    grid = anchor_grid(416, 416, (8, 16, 32))
    boxes = decode_boxes(golden["raw_output"][0, :, :4], grid.cells_ij, grid.strides, "yolox")
    expected = golden["decoded_cxcywh"].reshape(-1, golden["decoded_cxcywh"].shape[-1])[:, :4]
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, expected[:, :2], atol=1e-2)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], expected[:, 2:], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("coding", ["yolox", "anchor_point"])
def test_wild_values_give_large_finite_boxes(coding: str) -> None:
    wild = np.float32([[1e30, -1e30, 500, 1e30], [np.inf, -np.inf, np.inf, -np.inf]])
    boxes = decode_boxes(wild, np.zeros((2, 2), np.float32), np.float32([32, 32]), coding)  # type: ignore[arg-type]
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2] - boxes[:, 0] > 1e4).all()


def slow_candidates(
    raw: NDArray[np.float32], confidence: float, score_by: str
) -> list[tuple[int, float]]:
    """The obvious way: decode every row, then filter; gives (row, score), best first."""
    objectness = 1 / (1 + np.exp(-raw[:, 4].astype(float)))
    best_class = (1 / (1 + np.exp(-raw[:, 5:].astype(float)))).max(axis=1)
    scores = objectness if score_by == "objectness" else objectness * best_class
    rows = [row for row in range(len(raw)) if scores[row] >= confidence]
    return sorted(((row, scores[row]) for row in rows), key=lambda pair: -pair[1])


@given(
    hnp.arrays(np.float32, (84, 8), elements=st.floats(-6, 6, width=32)),
    st.floats(0.01, 0.99),
    st.sampled_from(["objectness", "joint"]),
)
def test_filtering_before_decoding_finds_what_decoding_everything_finds(
    raw: NDArray[np.float32], confidence: float, score_by: ScoreBy
) -> None:
    found = decode_candidates(
        raw, GRID, CONTRACT, confidence=confidence, score_by=score_by, max_candidates=1000
    )
    expected = [
        score
        for _, score in slow_candidates(raw, confidence, score_by)
        if abs(score - confidence) > 1e-5
    ]
    scores = [score for score in found.scores if abs(score - confidence) > 1e-5]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def raw_with(**rows: tuple[float, list[float]]) -> NDArray[np.float32]:
    """Raw rows that are all background but for r0, r1, ...: (objectness logit, class logits)."""
    raw = np.full((84, 8), -20, dtype=np.float32)
    raw[:, :4] = 0
    for name, (objectness, classes) in rows.items():
        raw[int(name[1:]), 4:] = [objectness, *classes]
    return raw


def candidates(raw: NDArray[np.float32], **options: object) -> list[tuple[int, float]]:
    defaults = {"confidence": 0.5, "score_by": "objectness", "max_candidates": 10}
    found = decode_candidates(raw, GRID, CONTRACT, **(defaults | options))  # type: ignore[arg-type]
    return [
        (int(i), round(float(s), 3)) for i, s in zip(found.class_ids, found.scores, strict=True)
    ]


def test_each_row_is_given_its_best_class() -> None:
    raw = raw_with(r3=(2.0, [0.0, 3.0, 1.0]), r9=(1.0, [3.0, 0.0, 1.0]))
    assert candidates(raw) == [(1, 0.881), (0, 0.731)]


def test_joint_score_is_the_product_of_both_probabilities() -> None:
    assert candidates(raw_with(r3=(2.0, [0, 3, 1])), score_by="joint") == [(1, 0.839)]
    assert candidates(raw_with(r3=(2.0, [0, -1, -2])), score_by="joint") == []


def test_only_the_best_candidates_are_kept() -> None:
    raw = raw_with(r1=(1, [1, 0, 0]), r2=(3, [1, 0, 0]), r3=(2, [1, 0, 0]))
    assert candidates(raw, max_candidates=2) == [(0, 0.953), (0, 0.881)]


def test_only_the_classes_asked_for_are_kept() -> None:
    raw = raw_with(r1=(1, [1, 0, 0]), r2=(3, [0, 1, 0]))
    assert candidates(raw, class_ids=frozenset({0})) == [(0, 0.731)]


def test_broken_rows_are_left_out() -> None:
    raw = raw_with(r1=(1, [1, 0, 0]), r2=(np.nan, [0, 1, 0]), r3=(2, [0, 1, 0]))
    raw[3, 0] = np.nan
    assert candidates(raw) == [(0, 0.731)]


@pytest.mark.parametrize(("confidence", "count"), [(0.0, 84), (1.0, 0)])
def test_extreme_thresholds_keep_all_or_nothing(confidence: float, count: int) -> None:
    found = candidates(raw_with(), confidence=confidence, max_candidates=1000)
    assert len(found) == count


def test_probabilities_are_taken_as_they_are() -> None:
    contract = ModelContract(
        "m", "1", InputSpec("x", 64, 64), ("a", "b", "c"), score_activation="probabilities"
    )
    raw = np.zeros((84, 8), dtype=np.float32)
    raw[5, 4:] = [0.75, 0.25, 0.5, 0.125]
    found = decode_candidates(
        raw, GRID, contract, confidence=0.3, score_by="joint", max_candidates=9
    )
    np.testing.assert_allclose(found.scores, [0.375])
    np.testing.assert_allclose(found.objectness, [0.75])
    assert found.class_ids.tolist() == [1]
