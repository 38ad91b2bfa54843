"""MLflow and Weights & Biases; each is an optional package, imported when it is asked for."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from torch import Tensor

from model_export.files import write_atomically
from model_export.report.events import EpochEnded, RunStarted, StepsTaken
from model_export.report.loggers.scalars import epoch_scalars, step_scalars
from model_export.samples.targets import Targets

EXPERIMENT: Final = "yolox-serve"
# The longest value of a parameter that MLflow takes.
LONGEST_VALUE: Final = 6000
# Names of metrics have letters, digits and some signs; class names may have others.
UNFIT: Final = re.compile(r"[^\w\-./ ]")


class Service(Protocol):
    """A service that keeps numbers by step."""

    def open(self, settings: Mapping[str, object]) -> None:
        """Begin, or go on with what an earlier process began."""

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Keep some numbers of an optimizer step."""

    def close(self) -> None:
        """Send what is left."""


class Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI, or else in the folder `mlflow` of the run.

    Args:
        folder: The run's folder.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        # The file store needs no other package; MLflow would rather have a database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow  # noqa: PLC0415

        self._folder = folder
        place = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").absolute().as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=place)
        self._run = ""

    def open(self, settings: Mapping[str, object]) -> None:
        """Make a run of the experiment, or go on with that of an earlier process."""
        note = self._folder / "mlflow-run.txt"
        if note.is_file():
            self._run = note.read_text(encoding="utf-8").strip()
            self._client.update_run(self._run, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        number = (
            experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        )
        self._run = self._client.create_run(number, run_name=self._folder.name).info.run_id
        write_atomically(self._run.encode(), note)
        for name, value in settings.items():
            self._client.log_param(self._run, name, str(value)[:LONGEST_VALUE])

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Log the numbers."""
        for name, value in values.items():
            self._client.log_metric(self._run, UNFIT.sub("_", name), value, step=step)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


class Wandb:
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync` uploads it.

    Args:
        folder: The run's folder, which gets the folder `wandb`.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        import wandb  # noqa: PLC0415

        self._folder = folder
        self._wandb = wandb
        self._run: Any = None

    def open(self, settings: Mapping[str, object]) -> None:
        """Begin a run; one that is resumed has the id of the first."""
        note = self._folder / "wandb-run.txt"
        if not note.is_file():
            name = hashlib.sha256(os.urandom(16)).hexdigest()[:8]
            write_atomically(name.encode(), note)
        self._run = self._wandb.init(
            project=EXPERIMENT,
            name=self._folder.name,
            id=note.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(self._folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(settings),
        )

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Log the numbers."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


SERVICES: Final[dict[str, type[Mlflow] | type[Wandb]]] = {"mlflow": Mlflow, "wandb": Wandb}


def services(names: Sequence[str], folder: Path) -> list[Service]:
    """The services of these names.

    Raises:
        ModuleNotFoundError: The package of one is not installed.
    """
    return [SERVICES[name](folder) for name in names]


class ServiceLogger:
    """A watcher that logs a training to a service, by optimizer step.

    Args:
        service: The service.
        config: The configuration, a JSON object.
    """

    def __init__(self, service: Service, config: str) -> None:
        self._service = service
        self._settings = dict(_flat(json.loads(config)))
        self._epoch_steps = 1
        self._is_open = False

    def started(self, run: RunStarted) -> None:
        """Open the service."""
        self._epoch_steps = run.epoch_steps
        self._service.open(self._settings)
        self._is_open = True

    def sampled(self, step: int, images: Tensor, targets: Targets) -> None:
        """Samples are in TensorBoard's files and in the report."""

    def stepped(self, steps: StepsTaken) -> None:
        """Log losses, learning rate and speed."""
        self._service.write(step_scalars(steps), steps.step)

    def epoch_ended(self, epoch: EpochEnded) -> None:
        """Log the metrics."""
        if values := epoch_scalars(epoch):
            self._service.write(values, (epoch.number + 1) * self._epoch_steps - 1)

    def ended(self) -> None:
        """Close the service."""
        if self._is_open:
            self._service.close()
            self._is_open = False


def _flat(settings: Mapping[str, object], prefix: str = "") -> Mapping[str, object]:
    """Nested settings with dots between their names."""
    flat: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
