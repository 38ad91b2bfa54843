"""Leaves out what processes of one server have counted for models that none of them has loaded."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

MODEL_INFO: Final = "yolox_model_info"


class LoadedModels(Collector):
    """The values of all processes, without the series of models that are no longer loaded.

    The files of shared values cannot lose a series. Each process sets `yolox_model_info` to 0 for a
    version that it has unloaded; where no process has it any more, its series are left out.

    Args:
        values: Collects from the files.
    """

    def __init__(self, values: Collector) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """The families with the series of loaded models, and with all that name no model."""
        families = list(self._values.collect())
        loaded = {
            (sample.labels["model"], sample.labels["version"])
            for family in families
            if family.name == MODEL_INFO
            for sample in family.samples
            if sample.value
        }
        for family in families:
            family.samples = [
                sample
                for sample in family.samples
                if "version" not in sample.labels
                or (sample.labels["model"], sample.labels["version"]) in loaded
            ]
        return families
