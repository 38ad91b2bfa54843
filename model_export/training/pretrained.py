"""Where a training starts: the weights of an earlier one, perhaps for other classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model_export.errors import ModelExportError
from model_export.model.checkpoint import (
    class_count,
    difference_in_kind,
    difference_in_names,
    read_state_dict,
    shapes_of,
)
from model_export.model.head import CoupledHead
from model_export.model.variants import HeadKind
from model_export.model.yolox import YOLOX
from model_export.training.statistics import carries_statistics


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came from a file, and what did not.

    Attributes:
        path: The file.
        tensors: How many tensors are the file's.
        total: How many the model has.
        new: The others: class predictions, where the file has another number of classes. In a
            coupled head only their class rows are as initialised.
        classes: The model's number of classes.
        classes_in_file: The file's.
        folded: The file's batch norms carry no statistics: before a training, they need
            `model_export.training.statistics.restore_statistics`.
    """

    path: Path
    tensors: int
    total: int
    new: tuple[str, ...]
    classes: int
    classes_in_file: int
    folded: bool

    def line(self) -> str:
        """One line for a person."""
        parts = [f"loaded {self.tensors} of {self.total} tensors from {self.path}"]
        if self.new:
            # `head.cls_preds.0.weight` and its like are one thing to a person.
            layers = sorted({name.rsplit(".", 2)[0] for name in self.new})
            counts = f"{self.classes} classes instead of {self.classes_in_file}"
            parts.append(f"new: {', '.join(layers)} ({counts})")
        if self.folded:
            parts.append("its batch norms are folded")
        return "; ".join(parts)


def initialise(model: YOLOX, path: Path) -> Loaded:
    """Fill a model with the weights of a file that may be for another number of classes.

    Where the numbers differ, the class predictions stay as they are; a coupled head keeps its rows
    for box and objectness. Where they are the same, everything is taken, whatever the classes'
    names.

    Args:
        model: The model, untrained.
        path: Whatever `model_export.model.checkpoint.read_state_dict` reads.

    Raises:
        ModelExportError: The file cannot be read, or its weights are another model's; the model
            is then unchanged.
    """
    state, fresh = read_state_dict(path), model.state_dict()
    head: HeadKind = "coupled" if isinstance(model.head, CoupledHead) else "decoupled"
    expected, found = shapes_of(fresh), shapes_of(state)
    fitted = _with_classes_of(fresh, state, head)
    if shapes_of(fitted) != expected:
        names = difference_in_names(expected, shapes_of(fitted))
        reason = difference_in_kind(expected, found) or names
        raise ModelExportError(f"cannot start from {path}: {reason}; only classes may differ")
    model.load_state_dict(fitted)
    new = tuple(name for name in expected if found[name] != expected[name])
    return Loaded(
        path=path,
        tensors=len(expected) - len(new),
        total=len(expected),
        new=new,
        classes=class_count(expected, head),
        classes_in_file=class_count(found, head),
        folded=not carries_statistics(model),
    )


def _with_classes_of(
    fresh: Mapping[str, Tensor], state: Mapping[str, Tensor], head: HeadKind
) -> dict[str, Tensor]:
    """The weights of a file, with the class rows of a model where there are more or fewer."""
    layers, kept = ("head.preds.", 5) if head == "coupled" else ("head.cls_preds.", 0)
    given = class_count(shapes_of(state), head)
    fitted = dict(state)
    for name, own in fresh.items():
        theirs = (kept + given, *own.shape[1:])
        if name.startswith(layers) and name in state and state[name].shape == theirs != own.shape:
            fitted[name] = torch.cat([state[name][:kept], own[kept:].to(state[name])])
    return fitted
