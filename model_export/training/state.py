"""The state of a training, on disk too: all that it takes to continue as if uninterrupted."""

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from model_export.errors import ModelExportError
from model_export.files import replacing
from model_export.model.about import KEY, About
from model_export.training.loss_meter import Reading
from model_export.training.step import WeightAverage

# A disk with less left than this cannot have held a checkpoint.
SMALL_SPACE: Final = 4_000_000


@dataclass(slots=True)
class TrainingState:
    """Everything that changes while a model is trained.

    Attributes:
        model: With the weights that are trained.
        average: The average of the weights.
        optimizer: With its momenta.
        scaler: Scales the loss in float16; otherwise disabled.
        step: The optimizer step that comes next.
        best_ap: Highest AP on the validation data, or -1 before the first measurement.
        best_epoch: The epoch that had it, from 0, or -1.
        begun_epoch: The losses of an epoch that was interrupted, over its steps so far.
    """

    model: nn.Module
    average: WeightAverage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best_ap: float = -1.0
    best_epoch: int = -1
    begun_epoch: Reading = field(default_factory=Reading)

    def save(self, path: Path, about: About) -> None:
        """Write the state; the file's `model` is the average, which is what other readers want.

        Args:
            path: The file.
            about: The network, so that other readers need nothing else.

        Raises:
            ModelExportError: The file cannot be written.
        """
        training = {
            "weights": self.model.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "best_ap": self.best_ap,
            "best_epoch": self.best_epoch,
            "begun_epoch": asdict(self.begun_epoch),
        }
        weights = self.average.model.state_dict()
        _write({"model": weights, "training": training, KEY: about.to_json()}, path)

    def restore(self, path: Path) -> None:
        """Take over the state that was saved.

        Raises:
            ModelExportError: The file is no state of a training, or that of another model.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            training = content["training"]
            self.model.load_state_dict(training["weights"])
            self.average.model.load_state_dict(content["model"])
            self.average.updates = training["average_updates"]
            self.optimizer.load_state_dict(training["optimizer"])
            self.scaler.load_state_dict(training["scaler"])
            self.step = training["step"]
            self.best_ap = training["best_ap"]
            self.best_epoch = training["best_epoch"]
            # Earlier releases did not write it.
            self.begun_epoch = Reading(**training.get("begun_epoch", {}))
        except FileNotFoundError as error:
            raise _nothing_to_resume(path) from error
        except Exception as error:  # a damaged file makes torch raise almost anything
            why = "it is damaged, was cut short, or belongs to another model"
            raise ModelExportError(f"{path} is no training that fits this one: {why}") from error


def best_epoch(path: Path) -> int:
    """The epoch, from 0, with the highest AP of a saved training.

    Raises:
        ModelExportError: The file is no state of a training.
    """
    return _number_in(path, "best_epoch")


def steps_so_far(path: Path) -> int:
    """How many steps a saved training has taken.

    Raises:
        ModelExportError: There is no such file, or it is no state of a training.
    """
    return _number_in(path, "step")


def _number_in(path: Path, name: str) -> int:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(content["training"][name])
    except FileNotFoundError as error:
        raise _nothing_to_resume(path) from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise ModelExportError(
            f"{path} is no training, or it is damaged or was cut short"
        ) from error


def _nothing_to_resume(path: Path) -> ModelExportError:
    return ModelExportError(
        f"there is nothing to resume: no {path}; remove the folder to begin anew"
    )


def save_weights(model: nn.Module, path: Path, about: About) -> None:
    """Write the weights of a model, and what they belong to.

    Args:
        model: The model.
        path: The file.
        about: The network, so that readers need nothing else.

    Raises:
        ModelExportError: The file cannot be written.
    """
    _write({"model": model.state_dict(), KEY: about.to_json()}, path)


def _write(content: Mapping[str, Any], path: Path) -> None:
    try:
        with replacing(path) as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        why = "no space is left on the disk" if _is_full(path) else error
        raise ModelExportError(f"cannot write {path}: {why}") from error


def _is_full(path: Path) -> bool:
    """Whether a write failed for want of space, which PyTorch tells as a fault of its own."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path.parent).free < SMALL_SPACE
    return False
