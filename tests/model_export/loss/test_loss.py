"""The losses: the release's numbers, the article's targets, and what a trainer relies on."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from model_export.loss.assign import assign
from model_export.loss.boxes import (
    anchors_on,
    decode_boxes,
    encode_boxes,
    iou,
)
from model_export.loss.loss import (
    ARTICLE,
    PRESETS,
    YOLOX_RELEASE,
    DetectionLoss,
    LossParts,
    PresetName,
)
from model_export.model.head import DecoupledHead
from model_export.samples.targets import NO_OBJECT, Targets, pad_targets
from service.core.contract import BoxCoding

CPU = torch.device("cpu")
SIZE, CLASSES = 64, 3
ANCHORS = anchors_on(CPU, SIZE, SIZE)
BOX_LOSSES: tuple[Literal["iou", "giou"], ...] = ("iou", "giou")
Golden = dict[str, Tensor]

# Two overlapping objects, none, and one: x1, y1, x2, y2 in network pixels.
TARGETS = pad_targets(
    [
        torch.tensor([[8.0, 10.0, 40.0, 36.0], [20.0, 16.0, 60.0, 50.0]]),
        torch.zeros(0, 4),
        torch.tensor([[30.0, 30.0, 44.0, 58.0]]),
    ],
    [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])],
)
NOTHING = pad_targets([torch.zeros(0, 4)] * 3, [torch.zeros(0, dtype=torch.int64)] * 3)


def random_raw(seed: int = 0) -> Tensor:
    """Predictions near the first object of each image."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(3, len(ANCHORS.strides), 5 + CLASSES, generator=generator)
    raw[..., :4] *= 0.3
    raw[..., :4] += encode_boxes(TARGETS.boxes_xyxy[:, :1], ANCHORS, "yolox").clamp(min=-3)
    return raw


def values(parts: LossParts) -> Tensor:
    """In the order of the golden case."""
    return torch.stack([getattr(parts, field.name).detach() for field in dataclasses.fields(parts)])


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Golden:
    """The release's head and loss on four small images."""
    arrays: Any = np.load(shared_data / "golden" / "official_train_case.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def released_targets(golden: Golden) -> Targets:
    boxes, ids = [], []
    for image in golden["labels"]:
        class_ids, centers, sizes = image[image.sum(dim=1) > 0].split([1, 2, 2], dim=1)
        boxes.append(torch.cat([centers - sizes / 2, centers + sizes / 2], dim=1))
        ids.append(class_ids[:, 0].long())
    return pad_targets(boxes, ids)


def released_raw(golden: Golden, prefix: str) -> Tensor:
    """The golden outputs are decoded to centre and size: undo it."""
    outputs = golden[f"{prefix}outputs"]
    centers, sizes, logits = outputs.split([2, 2, outputs.shape[2] - 4], dim=2)
    corners = torch.cat([centers - sizes / 2, centers + sizes / 2], dim=2)
    return torch.cat([encode_boxes(corners, anchors_on(CPU, 128, 128), "yolox"), logits], dim=2)


def released_raw_gradient(golden: Golden, prefix: str, box_loss: str) -> Tensor:
    """The golden gradients are by centre and size: go on to the raw values."""
    gradient = golden[f"{prefix}grad_outputs/{box_loss}"].clone()
    gradient[..., :2] *= golden["strides"][0][:, None]
    gradient[..., 2:4] *= golden[f"{prefix}outputs"][..., 2:4]
    return gradient


def assert_near_its_largest(actual: Tensor | None, expected: Tensor) -> None:
    """Within 1e-4 of the largest expected gradient."""
    assert actual is not None
    largest = expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.parametrize("prefix", ["", "syn_"])
def test_assignment_is_that_of_the_release(prefix: str, golden: Golden) -> None:
    targets, anchors = released_targets(golden), anchors_on(CPU, 128, 128)
    found = assign(released_raw(golden, prefix), targets, anchors, "yolox")
    nowhere = torch.full((4, len(anchors.strides)), NO_OBJECT)
    truth = nowhere.scatter(1, found.rows, found.truth)
    class_ids = targets.class_ids.gather(1, truth.clamp(min=0)).masked_fill(truth < 0, NO_OBJECT)
    ious = torch.zeros(truth.shape).scatter(1, found.rows, found.ious)
    assert torch.equal(truth, golden[f"{prefix}matched_gt"])
    assert torch.equal(truth != NO_OBJECT, golden[f"{prefix}fg_mask"])
    assert torch.equal(class_ids, golden[f"{prefix}matched_cls"])
    torch.testing.assert_close(ious, golden[f"{prefix}pred_ious"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("prefix", ["", "syn_"])
def test_losses_and_gradients_by_outputs_are_those_of_the_release(
    prefix: str, box_loss: Literal["iou", "giou"], golden: Golden
) -> None:
    raw = released_raw(golden, prefix).requires_grad_()
    loss = DetectionLoss(dataclasses.replace(YOLOX_RELEASE, box_loss=box_loss))
    parts = loss(raw, released_targets(golden), 128, 128)
    parts.total.backward()
    expected = golden[f"{prefix}loss/{box_loss}"]
    torch.testing.assert_close(values(parts).double(), expected, rtol=1e-5, atol=0)
    assert_near_its_largest(raw.grad, released_raw_gradient(golden, prefix, box_loss))


@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_losses_and_gradients_by_features_are_those_of_the_release(
    box_loss: Literal["iou", "giou"], closing: bool, golden: Golden
) -> None:
    head = DecoupledHead(5, (16, 32, 64), (16, 16, 16))
    prefix = "state/"
    head.load_state_dict({n[len(prefix) :]: golden[n] for n in golden if n.startswith(prefix)})
    features = [golden[f"feat{level}"].clone().requires_grad_() for level in range(3)]
    loss = DetectionLoss(dataclasses.replace(YOLOX_RELEASE, box_loss=box_loss))
    parts = loss(head(features), released_targets(golden), 128, 128, closing=closing)
    parts.total.backward()
    case = box_loss + ("_l1" if closing else "")
    torch.testing.assert_close(values(parts).double(), golden[f"loss/{case}"], rtol=1e-5, atol=0)
    for level, feature in enumerate(features):
        assert_near_its_largest(feature.grad, golden[f"grad_feat{level}/{case}"])


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def slow_article_targets(raw: Tensor) -> list[list[float]]:
    """The objectness each row should have, one pair of boxes at a time."""
    predicted = decode_boxes(raw[..., :4], ANCHORS, "yolox").tolist()
    found = assign(raw, TARGETS, ANCHORS, "yolox")
    wanted = []
    for image, (boxes, ids) in enumerate(zip(*TARGETS, strict=True)):
        truths = [box for box, i in zip(boxes.tolist(), ids.tolist(), strict=True) if i >= 0]
        matched = dict(zip(found.rows[image].tolist(), found.truth[image].tolist(), strict=True))
        rows = []
        for row, box in enumerate(predicted[image]):
            overlaps = [slow_iou(box, truth) for truth in truths]
            match = matched.get(row, NO_OBJECT)
            rows.append(max(overlaps, default=0.0) if match == NO_OBJECT else overlaps[match])
        wanted.append(rows)
    return wanted


def objectness_targets(raw: Tensor, preset: PresetName) -> Tensor:
    """The target of each row, from the gradient of its cross-entropy: probability minus target."""
    raw = raw.clone().requires_grad_()
    positives = assign(raw, TARGETS, ANCHORS, "yolox").positive.sum()
    DetectionLoss(PRESETS[preset])(raw, TARGETS, SIZE, SIZE).total.backward()
    assert raw.grad is not None
    return raw.detach()[..., 4].sigmoid() - raw.grad[..., 4] * positives


@pytest.mark.parametrize("seed", range(5))
def test_article_objectness_aims_at_the_overlap_of_every_row(seed: int) -> None:
    raw = random_raw(seed)
    wanted = torch.tensor(slow_article_targets(raw))
    assert ((wanted > 0.05) & (wanted < 0.95)).sum() > 50
    torch.testing.assert_close(objectness_targets(raw, "article"), wanted, rtol=0, atol=1e-5)


def test_article_positive_aims_at_its_own_object_not_at_a_better_one() -> None:
    raw = random_raw(1)
    found = assign(raw, TARGETS, ANCHORS, "yolox")
    predicted = decode_boxes(raw[..., :4], ANCHORS, "yolox")
    best = iou(TARGETS.boxes_xyxy[:, :, None], predicted[:, None]).amax(dim=1)
    contested = found.positive & (best.gather(1, found.rows) > found.ious + 0.01)
    assert contested.any()
    aims = objectness_targets(raw, "article").gather(1, found.rows)
    torch.testing.assert_close(aims[contested], found.ious[contested])


def test_release_objectness_aims_at_one_and_zero() -> None:
    raw = random_raw()
    found = assign(raw, TARGETS, ANCHORS, "yolox")
    expected = torch.zeros_like(raw[..., 4]).scatter(1, found.rows, found.positive.float())
    torch.testing.assert_close(objectness_targets(raw, "yolox"), expected, rtol=0, atol=1e-5)


def positives(raw: Tensor) -> list[tuple[int, int, int, float]]:
    """Image, row, ground truth and IoU of each."""
    found = assign(raw, TARGETS, ANCHORS, "yolox")
    return [
        (image, *found_at)
        for image in range(len(raw))
        for found_at in zip(
            found.rows[image].tolist(),
            found.truth[image].tolist(),
            found.ious[image].tolist(),
            strict=True,
        )
        if found_at[1] != NO_OBJECT
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_only_positives_have_a_class_and_a_box_to_find(preset: PresetName) -> None:
    raw = random_raw().requires_grad_()
    DetectionLoss(PRESETS[preset])(raw, TARGETS, SIZE, SIZE, closing=True).total.backward()
    assert raw.grad is not None
    others = torch.ones(raw.shape[:2], dtype=torch.bool)
    for image, row, *_ in positives(raw.detach()):
        others[image, row] = False
    assert raw.grad[..., :4][others].count_nonzero() == 0
    assert raw.grad[..., 5:][others].count_nonzero() == 0
    assert (raw.grad[..., 4] != 0).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_class_target_is_one_or_the_iou(preset: PresetName) -> None:
    raw = random_raw()
    found = positives(raw)
    wanted = 0.0
    for image, row, truth, overlap in found:
        for class_id, logit in enumerate(raw[image, row, 5:].tolist()):
            aim = 1.0 if preset == "article" else overlap
            target = aim if class_id == TARGETS.class_ids[image, truth] else 0.0
            probability = 1 / (1 + math.exp(-logit))
            wanted -= target * math.log(probability) + (1 - target) * math.log(1 - probability)
    parts = DetectionLoss(PRESETS[preset])(raw, TARGETS, SIZE, SIZE)
    assert parts.classification.item() == pytest.approx(wanted / len(found), rel=1e-5)


def test_article_has_a_giou_box_loss_and_never_l1() -> None:
    raw = random_raw()
    article = DetectionLoss(ARTICLE)(raw, TARGETS, SIZE, SIZE, closing=True)
    by_giou = dataclasses.replace(YOLOX_RELEASE, box_loss="giou")
    release = DetectionLoss(by_giou)(raw, TARGETS, SIZE, SIZE, closing=True)
    assert article.l1 == 0
    assert release.l1 > 0
    assert article.box == release.box


@pytest.mark.parametrize("preset", PRESETS)
def test_parts_add_up_to_the_total(preset: PresetName) -> None:
    parts = DetectionLoss(PRESETS[preset])(random_raw(), TARGETS, SIZE, SIZE, closing=True)
    total = parts.box + parts.objectness + parts.classification + parts.l1
    torch.testing.assert_close(parts.total, total)
    assert parts.positives_per_truth.item() == pytest.approx(len(positives(random_raw())) / 3)


def test_box_weight_weighs_the_box_loss_alone() -> None:
    usual = DetectionLoss(YOLOX_RELEASE)(random_raw(), TARGETS, SIZE, SIZE)
    lighter = dataclasses.replace(YOLOX_RELEASE, reg_weight=1.0)
    light = DetectionLoss(lighter)(random_raw(), TARGETS, SIZE, SIZE)
    torch.testing.assert_close(5 * light.box, usual.box)
    assert light.objectness == usual.objectness


def test_class_weight_weighs_the_class_loss_alone() -> None:
    usual = DetectionLoss(YOLOX_RELEASE)(random_raw(), TARGETS, SIZE, SIZE)
    heavier = dataclasses.replace(YOLOX_RELEASE, class_weight=2.0)
    heavy = DetectionLoss(heavier)(random_raw(), TARGETS, SIZE, SIZE)
    torch.testing.assert_close(heavy.classification, 2 * usual.classification)
    assert heavy.box == usual.box
    assert heavy.objectness == usual.objectness


@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_without_objects_still_teaches_objectness(preset: PresetName) -> None:
    raw = random_raw().requires_grad_()
    parts = DetectionLoss(PRESETS[preset])(raw, NOTHING, SIZE, SIZE, closing=True)
    parts.total.backward()
    assert raw.grad is not None
    assert parts.total.isfinite()
    assert values(parts)[1:].count_nonzero() == 1
    torch.testing.assert_close(raw.grad[..., 4], raw.detach()[..., 4].sigmoid())
    assert raw.grad[..., :4].count_nonzero() == raw.grad[..., 5:].count_nonzero() == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_padding_changes_nothing(preset: PresetName) -> None:
    longer = pad_targets(
        [*TARGETS.boxes_xyxy, torch.zeros(9, 4)],
        [*TARGETS.class_ids, torch.zeros(9, dtype=torch.int64)],
    )
    padded = Targets(longer.boxes_xyxy[:3], longer.class_ids[:3])
    loss = DetectionLoss(PRESETS[preset])
    torch.testing.assert_close(
        values(loss(random_raw(), padded, SIZE, SIZE)),
        values(loss(random_raw(), TARGETS, SIZE, SIZE)),
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_wild_predictions_give_finite_gradients(logit: float, preset: PresetName) -> None:
    raw = torch.full_like(random_raw(), logit).requires_grad_()
    parts = DetectionLoss(PRESETS[preset])(raw, TARGETS, SIZE, SIZE, closing=True)
    parts.total.backward()
    assert raw.grad is not None
    assert values(parts).isfinite().all()
    assert raw.grad.isfinite().all()


@pytest.mark.parametrize("preset", PRESETS)
def test_half_precision_is_computed_in_full(preset: PresetName) -> None:
    halves = random_raw().bfloat16()
    loss = DetectionLoss(PRESETS[preset])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = loss(halves, TARGETS, SIZE, SIZE, closing=True)
    assert values(parts).dtype == torch.float32
    exact = loss(halves.float(), TARGETS, SIZE, SIZE, closing=True)
    torch.testing.assert_close(values(parts), values(exact))


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_of_two_processes_average_to_those_of_one(preset: PresetName) -> None:
    raw = random_raw().requires_grad_()
    total = len(positives(raw.detach()))
    DetectionLoss(PRESETS[preset])(raw, TARGETS, SIZE, SIZE).total.backward()
    assert raw.grad is not None
    shared = DetectionLoss(PRESETS[preset], divisor=lambda count: count.new_tensor(total) / 2)
    for images in (slice(0, 1), slice(1, 3)):
        part = random_raw()[images].requires_grad_()
        targets = Targets(TARGETS.boxes_xyxy[images], TARGETS.class_ids[images])
        shared(part, targets, SIZE, SIZE).total.backward()
        assert part.grad is not None
        torch.testing.assert_close(part.grad / 2, raw.grad[images])


@pytest.mark.parametrize("preset", PRESETS)
def test_no_step_waits_for_the_device(preset: PresetName) -> None:
    """Meta tensors have shapes and no values: reading one, or a shape made of values, fails."""
    meta = torch.device("meta")
    raw = random_raw().to(meta).requires_grad_()
    loss = DetectionLoss(PRESETS[preset])
    loss(raw, TARGETS.to(meta), SIZE, SIZE, closing=True).total.backward()
    assert raw.grad is not None
    assert raw.grad.shape == raw.shape


def test_output_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="84 raw rows, but 64x96 has 126 cells"):
        DetectionLoss(ARTICLE)(random_raw(), TARGETS, 64, 96)


@pytest.mark.parametrize("coding", ["yolox", "anchor_point"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_few_steps_make_the_loss_smaller(preset: PresetName, coding: BoxCoding) -> None:
    """A moving target: what is positive changes on the way, so the ends are averaged."""
    torch.manual_seed(0)
    head = DecoupledHead(CLASSES, (16, 32, 64), (16, 16, 16))
    features = [torch.randn(3, 16 << level, 8 >> level, 8 >> level) for level in range(3)]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    loss = DetectionLoss(PRESETS[preset], coding=coding)
    totals = []
    for _ in range(60):
        parts = loss(head(features), TARGETS, SIZE, SIZE)
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
        totals.append(parts.total.item())
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])
