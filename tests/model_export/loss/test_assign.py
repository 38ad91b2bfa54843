"""SimOTA against a version in plain loops, its properties, and the boxes it works on."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_export.loss.assign import MAX_PER_TRUTH, Assignment, assign
from model_export.loss.boxes import (
    STRIDES,
    Anchors,
    anchors_on,
    decode_boxes,
    encode_boxes,
    giou,
    iou,
    largest_iou,
)
from model_export.samples.targets import NO_OBJECT, Targets, pad_targets
from service.core import decode
from service.core.contract import BoxCoding
from support.tensor_memory import TensorMemory

CPU = torch.device("cpu")
HEIGHT, WIDTH, CLASSES = 64, 96, 5
ANCHORS = anchors_on(CPU, HEIGHT, WIDTH)
CODINGS: tuple[BoxCoding, ...] = ("yolox", "anchor_point")


@dataclass(frozen=True)
class Case:
    """A batch whose predictions lie near its objects, so that several fit each of them."""

    raw: Tensor
    boxes: list[Tensor]
    ids: list[Tensor]
    coding: BoxCoding

    def targets(self) -> Targets:
        return pad_targets(self.boxes, self.ids)

    def assign(self, center_radius: float = 1.5) -> Assignment:
        return assign(self.raw, self.targets(), ANCHORS, self.coding, center_radius=center_radius)


def make_case(seed: int, counts: list[int], margin: float, coding: BoxCoding) -> Case:
    """`margin`: how far the centres keep from the border, in pixels."""
    generator = torch.Generator().manual_seed(seed)
    room = torch.tensor([WIDTH, HEIGHT]) - 2 * margin
    raw = torch.randn(len(counts), len(ANCHORS.strides), 5 + CLASSES, generator=generator)
    boxes, ids = [], []
    for image, count in enumerate(counts):
        centers = margin + torch.rand(count, 2, generator=generator) * room
        sides = 8 + 40 * torch.rand(count, 2, generator=generator)
        boxes.append(torch.cat([centers - sides / 2, centers + sides / 2], dim=1))
        ids.append(torch.randint(CLASSES, (count,), generator=generator))
        if count:
            near = torch.randint(count, (raw.shape[1],), generator=generator)
            raw[image, :, :4] *= 0.2
            raw[image, :, :4] += encode_boxes(boxes[image][near], ANCHORS, coding)
    return Case(raw, boxes, ids, coding)


ANY_COUNTS = st.lists(st.integers(0, 6), min_size=1, max_size=3)


def cases(
    margin: float, counts: st.SearchStrategy[list[int]] = ANY_COUNTS
) -> st.SearchStrategy[Case]:
    return st.builds(
        make_case,
        seed=st.integers(0, 2**32 - 1),
        counts=counts,
        margin=st.just(margin),
        coding=st.sampled_from(CODINGS),
    )


# Sixteen pixels from the border every object has more than ten candidates of its own. Nearer, it
# may have to take others' at a cost of a million, where float32 hardly tells costs apart.
INNER = 16.0


def matches(found: Assignment, image: int) -> dict[int, int]:
    """Row to ground truth."""
    pairs = zip(found.rows[image].tolist(), found.truth[image].tolist(), strict=True)
    return {row: truth for row, truth in pairs if truth != NO_OBJECT}


def candidates(box: list[float], radius: float) -> set[int]:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    rows = set()
    for row, (px, py) in enumerate(ANCHORS.points_xy().tolist()):
        reach = radius * ANCHORS.strides[row].item()
        if abs(px - x) < reach and abs(py - y) < reach:
            rows.add(row)
    return rows


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def slow_cost(logits: list[float], class_id: int, overlap: float) -> float:
    objectness, *classes = [1 / (1 + math.exp(-value)) for value in logits]
    cost = -3 * math.log(overlap + 1e-8)
    for index, probability in enumerate(classes):
        joint = math.sqrt(probability * objectness)
        cost -= math.log(joint if index == class_id else 1 - joint)
    return cost


def slow_simota(case: Case, image: int, radius: float) -> dict[int, int]:
    """One image, one pair at a time, as the text says it."""
    boxes, ids = case.boxes[image].tolist(), case.ids[image].tolist()
    predicted = decode_boxes(case.raw[image, :, :4], ANCHORS, case.coding).tolist()
    own = [candidates(box, radius) for box in boxes]
    costs: list[dict[int, float]] = [{} for _ in boxes]
    claimants: dict[int, list[int]] = {}
    for truth, box in enumerate(boxes):
        overlaps = {row: slow_iou(box, predicted[row]) for row in set().union(*own)}
        for row, overlap in overlaps.items():
            logits = case.raw[image, row, 4:].tolist()
            costs[truth][row] = slow_cost(logits, ids[truth], overlap)
            costs[truth][row] += 0 if row in own[truth] else 1e6
        k = max(1, int(sum(sorted(overlaps.values(), reverse=True)[:10])))
        for row in sorted(overlaps, key=costs[truth].__getitem__)[:k]:
            claimants.setdefault(row, []).append(truth)
    cheapest = {row: min(range(len(boxes)), key=lambda t: costs[t][row]) for row in claimants}
    return {row: c[0] if len(c) == 1 else cheapest[row] for row, c in claimants.items()}


@given(cases(INNER), st.sampled_from([1.5, 2.5]))
@settings(max_examples=40, deadline=None)
def test_assignment_is_that_of_plain_loops(case: Case, radius: float) -> None:
    found = case.assign(radius)
    for image in range(len(case.boxes)):
        assert matches(found, image) == slow_simota(case, image, radius)


@given(cases(margin=-20.0))
@settings(deadline=None)
def test_a_row_is_positive_once_and_for_a_real_object(case: Case) -> None:
    found = case.assign()
    for image, boxes in enumerate(case.boxes):
        assert len(set(found.rows[image].tolist())) == found.rows.shape[1]
        assert set(matches(found, image).values()) <= set(range(len(boxes)))


@given(cases(margin=-20.0))
@settings(deadline=None)
def test_positives_are_candidates(case: Case) -> None:
    found = case.assign()
    for image, boxes in enumerate(case.boxes):
        own = [candidates(box, 1.5) for box in boxes.tolist()]
        assert set(matches(found, image)) <= set().union(*own)


@given(cases(INNER))
@settings(deadline=None)
def test_an_object_with_enough_candidates_takes_only_its_own(case: Case) -> None:
    found = case.assign()
    for image, boxes in enumerate(case.boxes):
        own = [candidates(box, 1.5) for box in boxes.tolist()]
        assert all(row in own[truth] for row, truth in matches(found, image).items())


@given(cases(INNER, counts=st.just([1])))
@settings(deadline=None)
def test_a_lone_object_takes_as_many_rows_as_its_best_ious_add_up_to(case: Case) -> None:
    rows = sorted(candidates(case.boxes[0][0].tolist(), 1.5))
    predicted = decode_boxes(case.raw[0, :, :4], ANCHORS, case.coding)[rows]
    best = iou(predicted, case.boxes[0]).sort(descending=True).values[:10]
    positives = len(matches(case.assign(), 0))
    assert positives == max(1, int(best.sum()))
    assert 1 <= positives <= MAX_PER_TRUTH


@given(cases(margin=-20.0))
@settings(deadline=None)
def test_there_are_never_more_positives_than_claims(case: Case) -> None:
    found = case.assign()
    for image, boxes in enumerate(case.boxes):
        assert len(matches(found, image)) <= MAX_PER_TRUTH * len(boxes)


@given(cases(INNER, counts=st.just([5])), st.permutations(range(5)))
@settings(deadline=None)
def test_another_order_of_objects_changes_only_their_numbers(case: Case, order: list[int]) -> None:
    # Objects of one class that a prediction misses alike tie, and the first of them wins.
    ids = torch.arange(5)
    distinct = Case(case.raw, case.boxes, [ids], case.coding)
    shuffled = Case(case.raw, [case.boxes[0][order]], [ids[order]], case.coding)
    renamed = {row: order[truth] for row, truth in matches(shuffled.assign(), 0).items()}
    assert renamed == matches(distinct.assign(), 0)


@given(cases(INNER, counts=st.just([3, 0, 1])))
@settings(deadline=None)
def test_images_do_not_influence_each_other(case: Case) -> None:
    together = case.assign()
    for image in range(3):
        alone = Case(
            case.raw[image : image + 1], [case.boxes[image]], [case.ids[image]], case.coding
        )
        assert matches(alone.assign(), 0) == matches(together, image)


@given(cases(INNER))
@settings(deadline=None)
def test_ious_are_those_with_the_matched_object(case: Case) -> None:
    found = case.assign()
    predicted = decode_boxes(case.raw[..., :4], ANCHORS, case.coding)
    for image, truths in enumerate(found.truth.tolist()):
        for place, truth in enumerate(truths):
            expected = torch.tensor(0.0)
            if truth != NO_OBJECT:
                expected = iou(predicted[image, found.rows[image, place]], case.boxes[image][truth])
            torch.testing.assert_close(found.ious[image, place], expected)


def test_a_contested_row_goes_to_the_cheaper_object() -> None:
    """Two objects of one place and size, and predictions that say which class is there."""
    box = torch.tensor([[30.0, 20.0, 62.0, 44.0]])
    raw = torch.zeros(1, len(ANCHORS.strides), 5 + CLASSES)
    raw[..., :4] = encode_boxes(box, ANCHORS, "yolox")
    raw[..., 5:] = torch.tensor([-4.0, -4.0, 4.0, -4.0, -4.0])
    case = Case(raw, [box.repeat(2, 1)], [torch.tensor([1, 2])], "yolox")
    assert set(matches(case.assign(), 0).values()) == {1}


def test_an_object_out_of_reach_takes_one_row_of_another() -> None:
    boxes = torch.tensor([[30.0, 20.0, 62.0, 44.0], [-500.0, -500.0, -400.0, -400.0]])
    raw = torch.zeros(1, len(ANCHORS.strides), 5 + CLASSES)
    raw[..., 5:] = -10.0
    cheap = min(candidates(boxes[0].tolist(), 1.5))
    # A row so good for the second object's class that even 10^6, rounded to float32, lets it show.
    raw[0, cheap, 4:6] = 10.0
    case = Case(raw, [boxes], [torch.tensor([1, 0])], "yolox")
    assert matches(case.assign(), 0)[cheap] == 1


def test_an_object_out_of_reach_of_all_rows_is_left_alone() -> None:
    raw = torch.zeros(1, len(ANCHORS.strides), 5 + CLASSES)
    far = torch.tensor([[-500.0, -500.0, -400.0, -400.0]])
    found = Case(raw, [far], [torch.tensor([0])], "yolox").assign()
    assert not found.positive.any()
    assert found.ious.count_nonzero() == 0


def test_half_precision_output_is_assigned_in_full() -> None:
    case = make_case(7, [4, 2], INNER, "yolox")
    halves = Case(case.raw.bfloat16(), case.boxes, case.ids, "yolox")
    full = Case(case.raw.bfloat16().float(), case.boxes, case.ids, "yolox")
    assert halves.assign().ious.dtype == torch.float32
    torch.testing.assert_close(halves.assign().truth, full.assign().truth)


@pytest.mark.parametrize("logit", [200.0, -200.0])
def test_certain_predictions_leave_costs_finite(logit: float) -> None:
    """Probabilities of exactly 0 and 1, as float32 has them at such logits."""
    case = make_case(3, [3], INNER, "yolox")
    case.raw[..., 4:] = logit
    assert set(matches(case.assign(), 0).values()) == {0, 1, 2}


@pytest.mark.parametrize("coding", CODINGS)
def test_boxes_decode_as_in_the_service(coding: BoxCoding) -> None:
    raw = torch.randn(2, len(ANCHORS.strides), 4) * 3
    raw[0, :8] = torch.tensor([[1e9], [-1e9], [100], [-200], [math.inf], [-math.inf], [0], [11]])
    grid = decode.anchor_grid(HEIGHT, WIDTH, STRIDES)
    for image in raw:
        expected = decode.decode_boxes(image.numpy(), grid.cells_ij, grid.strides, coding)
        decoded = decode_boxes(image, ANCHORS, coding)
        assert decoded.isfinite().all()
        np.testing.assert_allclose(decoded, expected, rtol=1e-6, atol=1e-4)


def test_anchor_point_coding_worked_by_hand() -> None:
    anchor = Anchors(torch.tensor([2.0, 1.0]), torch.tensor(32.0))
    assert anchor.points_xy().tolist() == [80, 48]
    box = decode_boxes(torch.tensor([20.0, 15.0, 0.2, 0.3]), anchor, "anchor_point")
    expected = torch.tensor([100.0, 63.0, 100 + 39.085, 63 + 43.195])
    torch.testing.assert_close(box, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("coding", CODINGS)
def test_encoding_undoes_decoding(coding: BoxCoding) -> None:
    raw = torch.randn(len(ANCHORS.strides), 4)
    again = encode_boxes(decode_boxes(raw, ANCHORS, coding), ANCHORS, coding)
    torch.testing.assert_close(again, raw, rtol=1e-4, atol=1e-4)


def test_a_box_without_area_has_finite_raw_values() -> None:
    assert encode_boxes(torch.zeros(4), ANCHORS, "yolox").isfinite().all()


def test_anchors_are_those_of_the_service() -> None:
    grid = decode.anchor_grid(HEIGHT, WIDTH, STRIDES)
    np.testing.assert_array_equal(ANCHORS.cells_ij, grid.cells_ij)
    np.testing.assert_array_equal(ANCHORS.strides, grid.strides)


def test_anchors_first_used_in_inference_still_serve_training() -> None:
    with torch.inference_mode():
        anchors = anchors_on(CPU, 32, 320)
    raw = torch.zeros(len(anchors.strides), 4, requires_grad=True)
    decode_boxes(raw, anchors, "yolox").sum().backward()
    assert raw.grad is not None


# Squares of side 10, 5 apart: intersection 50, union 150, hull 150. Then 20 apart: hull 300.
@pytest.mark.parametrize(
    ("shift", "overlap", "generalised"), [(0, 1, 1), (5, 1 / 3, 1 / 3), (20, 0, -1 / 3)]
)
def test_overlaps_worked_by_hand(shift: float, overlap: float, generalised: float) -> None:
    first = torch.tensor([0.0, 0.0, 10.0, 10.0])
    second = first + torch.tensor([shift, 0.0, shift, 0.0])
    torch.testing.assert_close(iou(first, second), torch.tensor(float(overlap)))
    torch.testing.assert_close(giou(first, second), torch.tensor(float(generalised)))


def test_overlaps_of_empty_boxes_have_finite_gradients() -> None:
    for overlap in (iou, giou):
        box = torch.zeros(4, requires_grad=True)
        overlap(box, torch.zeros(4)).backward()
        assert box.grad is not None
        assert box.grad.isfinite().all()


def test_padding_has_no_class_and_no_area() -> None:
    boxes = [torch.zeros(0, 4), torch.ones(2, 4)]
    targets = pad_targets(boxes, [torch.zeros(0, dtype=torch.int64), torch.tensor([1, 0])])
    assert targets.class_ids.tolist() == [[NO_OBJECT, NO_OBJECT], [1, 0]]
    assert targets.boxes_xyxy[0].count_nonzero() == 0
    moved = targets.to(torch.device("meta"))
    assert isinstance(moved, Targets)
    assert moved.class_ids.device.type == "meta"


def test_a_batch_without_objects_still_has_a_row_of_padding() -> None:
    targets = pad_targets([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2)
    assert targets.boxes_xyxy.shape == (2, 1, 4)


def crowded(counts: list[int], height: int, width: int) -> tuple[Tensor, Targets, Anchors]:
    """Raw rows of one class near random objects, of 8 to 48 pixels."""
    generator, anchors = torch.Generator().manual_seed(3), anchors_on(CPU, height, width)
    raw = torch.randn(len(counts), len(anchors.strides), 6, generator=generator)
    boxes = []
    for image, count in enumerate(counts):
        centers = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
        sides = 8 + 40 * torch.rand(count, 2, generator=generator)
        boxes.append(torch.cat([centers - sides / 2, centers + sides / 2], dim=1))
        near = torch.randint(count, (raw.shape[1],), generator=generator)
        raw[image, :, :4] = raw[image, :, :4] * 0.2 + encode_boxes(
            boxes[image][near], anchors, "yolox"
        )
    ids = [torch.zeros(count, dtype=torch.int64) for count in counts]
    return raw, pad_targets(boxes, ids), anchors


@settings(max_examples=40, deadline=None)
@given(case=cases(margin=-8.0), radius=st.sampled_from([1.5, 2.5]))
def test_comparing_fewer_pairs_at_once_changes_no_bit(case: Case, radius: float) -> None:
    whole = case.assign(radius)
    for pairs in (1, 3 * case.raw.shape[0] * case.raw.shape[1]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("model_export.loss.assign.MAX_PAIRS", pairs)
            parts = case.assign(radius)
        for name in ("rows", "truth", "ious"):
            assert torch.equal(getattr(parts, name), getattr(whole, name))


def test_a_crowded_picture_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for count in (20, 300):
        raw, targets, anchors = crowded([count, 5, 5, 5], 160, 160)
        monkeypatch.setattr("model_export.loss.assign.MAX_PAIRS", 20 * raw.shape[0] * raw.shape[1])
        with TensorMemory() as memory:
            found = assign(raw, targets, anchors, "yolox")
        assert found.positive[0].sum() >= count / 4
        peaks.append(memory.peak)
    # Fifteen times the objects: what grows with them are the ten claims of each.
    assert peaks[1] < 2 * peaks[0]


def test_largest_overlap_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, targets, anchors = crowded([300], 160, 160)
    boxes = decode_boxes(raw[0, :, :4], anchors, "yolox")
    whole = iou(targets.boxes_xyxy[0, :, None], boxes).amax(dim=0)
    peaks = []
    for truths in (300, 20):
        monkeypatch.setattr("model_export.loss.boxes.MAX_PAIRS", truths * len(boxes))
        with TensorMemory() as memory:
            assert torch.equal(largest_iou(boxes, targets.boxes_xyxy[0]), whole)
        peaks.append(memory.peak)
    assert peaks[1] < peaks[0] / 5
