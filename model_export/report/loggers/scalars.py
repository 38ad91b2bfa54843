"""The numbers of a training by the names that every logger gives them."""

from collections.abc import Mapping

from model_export.report.events import EpochEnded, StepsTaken


def step_scalars(steps: StepsTaken) -> dict[str, float]:
    """Losses, learning rate and speed of some steps."""
    losses = steps.losses
    return {
        "losses/total": losses.total,
        "losses/box": losses.box,
        "losses/objectness": losses.objectness,
        "losses/classification": losses.classification,
        "losses/l1": losses.l1,
        "positives_per_truth": losses.positives_per_truth,
        "rate": steps.rate,
        "images_per_second": steps.images_per_second,
    }


def epoch_scalars(epoch: EpochEnded) -> dict[str, float]:
    """The metrics of an epoch, as far as they are known; none if it was not measured."""
    metrics = epoch.metrics
    if metrics is None:
        return {}
    return {
        **_tagged("metrics", metrics.overall),
        **_tagged("AP_by_class", metrics.ap_by_class),
        **_tagged("AP50_by_class", metrics.ap50_by_class),
    }


def _tagged(group: str, values: Mapping[str, float | None]) -> dict[str, float]:
    return {
        f"{group}/{name.replace(' ', '_')}": value
        for name, value in values.items()
        if value is not None
    }
