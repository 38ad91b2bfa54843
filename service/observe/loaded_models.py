"""Leaves out what processes of one server have counted for models that none of them has loaded."""

from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

MODEL_INFO: Final = "yolox_model_info"
MODEL_LOADS: Final = "yolox_model_loads_total"


class LoadedModels(Collector):
    """The values of all processes, without the series of versions that are not loaded.

    The files of shared values cannot lose a series. Each process sets `yolox_model_info` to 0 for a
    version that it has unloaded; where no process has it any more, its series are left out. Failed
    loads of a version that was never loaded are told.

    Args:
        values: Collects from the files.
    """

    def __init__(self, values: Collector) -> None:
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """The families with the series of loaded models, and with all that name no model."""
        families = list(self._values.collect())
        infos = [
            sample for family in families if family.name == MODEL_INFO for sample in family.samples
        ]
        loaded = {_version(sample) for sample in infos if sample.value}
        ever_loaded = {_version(sample) for sample in infos}
        for family in families:
            family.samples = [
                sample
                for sample in family.samples
                if "version" not in sample.labels
                or _version(sample) in loaded
                or (_is_failed_load(sample) and _version(sample) not in ever_loaded)
            ]
        return families


def _is_failed_load(sample: Sample) -> bool:
    return sample.name == MODEL_LOADS and sample.labels["outcome"] == "failed"


def _version(sample: Sample) -> tuple[str, str]:
    return sample.labels["model"], sample.labels["version"]
