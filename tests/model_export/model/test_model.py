"""The networks: names and shapes of the release, its numbers, and what a trainer relies on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_export.loss.assign import assign
from model_export.loss.boxes import STRIDES, anchors_on
from model_export.model.backbones.darknet53 import Darknet53
from model_export.model.blocks import SILU, SpatialPyramidPooling
from model_export.model.head import CoupledHead, DecoupledHead, centre_first_boxes, raw_rows
from model_export.model.variants import HEAD_KINDS, VARIANTS, HeadKind, Variant
from model_export.model.yolox import YOLOX, build
from model_export.samples.targets import pad_targets
from service.core.contract import BoxCoding

RELEASED = tuple(name for name in VARIANTS if name not in {"pico", "micro", "darknet53-article"})


@pytest.fixture(scope="module")
def released(shared_data: Path) -> dict[str, Any]:
    """Parameter counts and state_dict shapes of the released models, by variant."""
    text = (shared_data / "golden" / "official_state_dicts.json").read_text()
    variants: dict[str, Any] = json.loads(text)["variants"]
    return variants


@pytest.fixture(scope="module")
def released_nano(shared_data: Path) -> YOLOX:
    """YOLOX-Nano with the released weights."""
    arrays = np.load(shared_data / "weights" / "yolox_nano_state_bnfused.npz")
    model = build("nano")
    model.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return model.eval()


def _on_meta(variant: Variant, num_classes: int = 80, head: HeadKind = "decoupled") -> YOLOX:
    """A model without memory: names and shapes only."""
    with torch.device("meta"):
        return build(variant, num_classes, head)


@pytest.mark.parametrize("variant", RELEASED)
def test_every_variant_matches_the_released_state_dict(
    variant: Variant, released: dict[str, Any]
) -> None:
    model = _on_meta(variant)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes == released[variant]["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == released[variant]["parameters"]


@pytest.mark.parametrize("image", ["dog", "000000397133", "000000184324"])
def test_raw_output_is_that_of_the_released_nano(
    image: str, released_nano: YOLOX, shared_data: Path
) -> None:
    golden = np.load(shared_data / "golden" / f"official_nano_{image}.npz")
    with torch.no_grad():
        raw = released_nano(torch.from_numpy(golden["letterbox_u8_chw"]).float()[None])
    # The golden export has objectness and classes through the sigmoid already.
    raw[..., 4:] = raw[..., 4:].sigmoid()
    assert np.abs(raw.numpy() - golden["raw_output"]).max() < 1e-3


def test_head_in_training_gives_the_released_logits(shared_data: Path) -> None:
    golden = np.load(shared_data / "golden" / "official_train_case.npz")
    head = DecoupledHead(5, (16, 32, 64), (16, 16, 16))
    prefix = "state/"
    head.load_state_dict(
        {
            name.removeprefix(prefix): torch.from_numpy(golden[name])
            for name in golden.files
            if name.startswith(prefix)
        }
    )
    with torch.no_grad():
        raw = head([torch.from_numpy(golden[f"feat{level}"]) for level in range(3)])
    np.testing.assert_allclose(raw[..., :4], golden["origin_reg"], atol=1e-5)
    np.testing.assert_allclose(raw[..., 4:], golden["outputs"][..., 4:], atol=1e-5)


def test_rows_come_level_by_level_and_row_by_row() -> None:
    fine = torch.arange(8.0).reshape(1, 1, 2, 4)
    coarse = torch.tensor([[[[8.0, 9.0]]]])
    assert raw_rows([fine, coarse]).tolist() == [[[float(i)] for i in range(10)]]


@pytest.mark.parametrize("head", HEAD_KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_rectangular_image_gives_one_row_per_cell(variant: Variant, head: HeadKind) -> None:
    model = _on_meta(variant, num_classes=3, head=head)
    raw = model(torch.empty(2, 3, 64, 96, device="meta"))
    assert raw.shape == (2, 8 * 12 + 4 * 6 + 2 * 3, 4 + 1 + 3)


@pytest.mark.parametrize(("variant", "thirds"), [("pico", 1), ("micro", 2)])
def test_pico_and_micro_are_tiny_at_thirds_of_its_width(variant: Variant, thirds: int) -> None:
    """All are made of the same parts, so that a tensor of one has its counterpart in the other."""
    narrow, tiny = _on_meta(variant).state_dict(), _on_meta("tiny").state_dict()
    assert narrow.keys() == tiny.keys()
    assert {
        name: tensor.shape[0] * 3
        for name, tensor in narrow.items()
        if "dark" in name and "weight" in name
    } == {
        name: tensor.shape[0] * thirds
        for name, tensor in tiny.items()
        if "dark" in name and "weight" in name
    }


@pytest.mark.parametrize(("with_spp", "deepest"), [(False, 1024), (True, 512)])
def test_darknet_gives_the_last_three_stages(with_spp: bool, deepest: int) -> None:
    with torch.device("meta"):
        backbone = Darknet53(with_spp=with_spp)
        maps = backbone(torch.empty(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [(1, 256, 8, 8), (1, 512, 4, 4), (1, deepest, 2, 2)]
    assert backbone.out_channels == (256, 512, deepest)


@pytest.mark.parametrize(("variant", "activation"), [("s", nn.SiLU), ("darknet53", nn.LeakyReLU)])
def test_backbone_and_head_share_one_activation(
    variant: Variant, activation: type[nn.Module]
) -> None:
    model = _on_meta(variant)
    found = [m for m in model.modules() if isinstance(m, (nn.SiLU, nn.LeakyReLU))]
    assert {type(m) for m in found} == {activation}
    assert {m.negative_slope for m in found if isinstance(m, nn.LeakyReLU)} <= {0.1}


def test_batch_norms_have_the_released_epsilon_and_momentum() -> None:
    norms = [m for m in _on_meta("nano").modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_untrained_scores_begin_at_one_percent(head: HeadKind) -> None:
    model = build("nano", num_classes=2, head=head).eval()
    for parameter in model.head.parameters():
        if parameter.dim() > 1:
            nn.init.zeros_(parameter)
    with torch.no_grad():
        scores = model(torch.rand(1, 3, 32, 32))[..., 4:].sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01))


@pytest.mark.parametrize("coding", ["yolox", "anchor_point"])
@pytest.mark.parametrize("head", HEAD_KINDS)
def test_first_boxes_send_each_object_to_the_level_for_its_size(
    head: HeadKind, coding: BoxCoding
) -> None:
    torch.manual_seed(0)
    model = build("pico", 3, head).eval()
    if coding == "anchor_point":
        centre_first_boxes(model.head, STRIDES)
    sides = torch.tensor([28.0, 64.0, 140.0])
    centres = torch.tensor([[30.0, 30.0], [100.0, 40.0], [170.0, 170.0]])
    boxes = torch.cat([centres - sides[:, None] / 2, centres + sides[:, None] / 2], dim=1)
    targets = pad_targets([boxes], [torch.tensor([0, 1, 2])])
    anchors = anchors_on(torch.device("cpu"), 256, 256)
    with torch.no_grad():
        raw = model(255 * torch.rand(1, 3, 256, 256))
    found = assign(raw, targets, anchors, coding)
    strides = anchors.strides[found.rows]
    for truth, stride in enumerate((8, 16, 32)):
        assert set(strides[found.truth == truth].tolist()) == {stride}


def test_pooling_in_a_row_equals_the_three_windows() -> None:
    pooling = SpatialPyramidPooling(8, 4, SILU).eval()
    image = torch.randn(1, 8, 20, 17)
    with torch.no_grad():
        hidden = pooling.conv1(image)
        windows = [nn.functional.max_pool2d(hidden, k, 1, k // 2) for k in (5, 9, 13)]
        expected = pooling.conv2(torch.cat([hidden, *windows], dim=1))
        torch.testing.assert_close(pooling(image), expected)


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_a_loss_on_the_raw_rows_reaches_every_parameter(head: HeadKind) -> None:
    model = build("nano", num_classes=2, head=head).train()
    raw: Tensor = model(torch.rand(2, 3, 64, 64) * 255)
    raw.square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("head", [DecoupledHead, CoupledHead])
def test_heads_take_a_width_per_level(head: type[DecoupledHead] | type[CoupledHead]) -> None:
    with torch.device("meta"):
        rows = head(3, (4, 8, 16), (6, 12, 24))(
            [torch.empty(1, c, size, size) for c, size in ((4, 8), (8, 4), (16, 2))]
        )
    assert rows.shape == (1, 64 + 16 + 4, 8)
