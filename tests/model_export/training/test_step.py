import math

import pytest
import torch
from torch import nn

from model_export.model.yolox import yolox_nano
from model_export.training.step import Schedule, WeightAverage, sgd

SCHEDULE = Schedule(0.01, total_steps=100, warmup_steps=10, closing_steps=20, floor_ratio=0.05)


def test_rate_rises_with_the_square_of_the_step_to_its_peak() -> None:
    assert SCHEDULE.rate(0) == pytest.approx(0.01 / 100)
    assert SCHEDULE.rate(4) == pytest.approx(0.01 / 4)
    assert SCHEDULE.rate(9) == pytest.approx(0.01)


def test_rate_falls_along_a_cosine_and_stays_low_to_the_end() -> None:
    assert SCHEDULE.rate(10) == pytest.approx(0.01)
    assert SCHEDULE.rate(45) == pytest.approx((0.01 + 0.0005) / 2)
    assert [SCHEDULE.rate(step) for step in (80, 90, 99)] == pytest.approx([0.0005] * 3)
    rates = [SCHEDULE.rate(step) for step in range(10, 100)]
    assert rates == sorted(rates, reverse=True)


def test_a_training_shorter_than_its_parts_still_has_rates() -> None:
    short = Schedule(0.01, total_steps=3, warmup_steps=2, closing_steps=5)
    assert all(0 < short.rate(step) <= 0.01 for step in range(3))


def test_only_what_multiplies_features_decays() -> None:
    model = yolox_nano(3)
    decaying, fixed = sgd(model, rate=0.1).param_groups
    assert (decaying["weight_decay"], fixed["weight_decay"]) == (5e-4, 0.0)
    convolutions = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {id(p) for p in decaying["params"]} == {id(p) for p in convolutions}
    count = sum(p.numel() for group in (decaying, fixed) for p in group["params"])
    assert count == sum(p.numel() for p in model.parameters())


def move(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def test_average_moves_by_the_share_that_its_ramp_gives() -> None:
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, decay=0.9)
    move(model, 1.0)
    average.update()
    keep = 0.9 * (1 - math.exp(-1 / 2000))
    torch.testing.assert_close(average.model.weight, torch.full((2,), 1 + (1 - keep)))


def test_average_of_an_unmoving_model_is_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    average = WeightAverage(model)
    for _ in range(3):
        average.update()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(average.model.state_dict()[name], value)


def test_average_goes_on_from_states_that_were_loaded() -> None:
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, decay=0.5, ramp=1)
    average.model.load_state_dict({**model.state_dict(), "weight": torch.zeros(2)})
    model.load_state_dict({**model.state_dict(), "weight": torch.full((2,), 8.0)})
    average.update()
    keep = 0.5 * (1 - math.exp(-1))
    torch.testing.assert_close(average.model.weight, torch.full((2,), 8 * (1 - keep)))


def test_average_follows_batch_norm_statistics_and_counts() -> None:
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, decay=0.0)
    model(torch.randn(4, 2, 3, 3) + 5)
    average.update()
    torch.testing.assert_close(average.model.running_mean, model.running_mean)
    assert average.model.num_batches_tracked == 1


def test_average_needs_no_gradient_and_leaves_the_model_trainable() -> None:
    model = nn.Conv2d(3, 4, 1)
    average = WeightAverage(model)
    assert not any(p.requires_grad for p in average.model.parameters())
    assert all(p.requires_grad for p in model.parameters())
